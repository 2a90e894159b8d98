"""A GitHub REST server for tests, held to GitHub's own OpenAPI description.

``with GitHubServer() as github:`` gives one on a free port of 127.0.0.1; ``github.url`` is its
github.com-style base and ``github.enterprise_url`` the same server as GitHub Enterprise has it.
"""
