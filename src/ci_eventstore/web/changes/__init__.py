"""What changes about jobs, read once for all clients that listen: its routes and the rules behind them."""
