"""The web page of `deviceops serve`: HTML for people, made of the API's own queries and of `processing`.

- `app`: mounts everything into the API's application
- `access`: `may(scope)`, the dependency of every page; sign-in and sessions (`signing`, `sessions`, `attempts`)
- `routing`: the route class of all pages: headers, the origin of each POST, errors as HTML
- `page`: what a route answers with: a whole page, a fragment of one, or a redirect with a message
- `audit`: who did what; every act calls `record`, or `acting` where it has transactions of its own
- `live`: which topics have changed; `events`: the stream of an open page; `parts`: live parts, rendered once for
  all open pages that show them; `renderings`: what is shared, and for how long
- `templating`: Jinja2 with its filters; `bars`: the bar of five colours; `static_files`: files by content hash
- `jobs`: acts on many dead letters, in portions in the background
- `facts`: what the system page shows that takes time to find; `cached` looks for it in the background, `broker`
  at the queues
- a module or a package for each room: `operations`, `operation`, `search`, `devices`, `system`, `audit_log`;
  `dead_letters` (groups and the list), `dead_letter` (one), `dead_letter_jobs` (acts on all of a filter), with
  `dead_letter_filters`, `_bodies`, `_faults` and `_outcomes`

worker/README.md says how to add a page.
"""
