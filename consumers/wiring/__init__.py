"""What each role is made of, one file per role: what it needs, what it subscribes, what it does unasked."""
