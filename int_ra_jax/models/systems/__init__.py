"""The retrieval systems: Int-RA and those it is compared with."""
