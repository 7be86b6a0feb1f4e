"""PostgreSQL's protocol in memory: connections of asyncpg that end inside the process."""
