"""The durable engine (DBOS Transact): how it is set up, which queues there are, and the workflows that run on them."""
