"""The workers the backend knows, where they may be, whose turn it is, and the road to them."""
