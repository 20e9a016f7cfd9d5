"""The long checks, one a file, named after what they try; ``tests.faults.campaign`` runs them."""
