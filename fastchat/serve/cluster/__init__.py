"""Who serves which model: the controller's insides, and the clients that ask it."""
