"""What the state machine does to each store. Ids and values are few, so that calls meet each other's traces."""
