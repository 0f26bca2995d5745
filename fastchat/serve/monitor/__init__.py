"""Statistics of one's own chats and votes, from the logs that the web pages write."""
