"""Training: the engine that computes, and what goes around it whatever the engine."""
