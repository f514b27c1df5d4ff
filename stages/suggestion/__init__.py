"""A preset for a text and an amount of time: rules from measurements, and how fast this machine trains."""
