"""The web page: conversations and their history, panes, votes, and the pages made of them."""
