"""Offers of controllers that have nothing to do to take the next job."""
