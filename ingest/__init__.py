"""Records of the stations -> joined evidence -> one published verdict per part and revision."""
