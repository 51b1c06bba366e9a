"""What one tenant tries on the rows of another: a table of cases for each store."""
