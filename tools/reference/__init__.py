"""Makes the reference model of sida: a small trained Switch encoder and the hash function that predicts its routing."""
