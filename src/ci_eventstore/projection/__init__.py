"""Check hashes and indexes against the streams that they are made from, and mend them."""
