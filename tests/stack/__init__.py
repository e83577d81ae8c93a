"""The composed service from outside, as processes and as containers; either replica, either directory."""
