// Package users is a small, complete user service on PostgreSQL and Redis: the
// service that stands behind the gateway in its demo, tests and benchmarks.
//
// # Requests
//
//	GET    /users                 page 1 of all users, oldest first
//	GET    /users?page=&page_size=
//	GET    /users?after=&page_size=
//	GET    /users?role=&page_size=
//	GET    /users/{id}
//	POST   /users                 one user: 201 and the user
//	POST   /users/batch           up to 10,000 users, all or nothing: 201 and their ids
//	PUT    /users/{id}            replaces name, email and role; the password only when given
//	DELETE /users/{id}            204
//	GET    /health                200, or 503 when the database is gone or the service is stopping
//	GET    /metrics               Prometheus text format
//	GET    /slow?ms=              answers after 0 to 30,000 ms (1,000)
//	GET    /fail                  500
//	GET    /stream?n=             1 to 1,000 (10) server-sent events, one each 200 ms
//
// GET stands for GET and HEAD. Unknown query parameters are ignored; a known
// one with a bad value, or given twice, is 400. Errors are
// application/problem+json (RFC 9457) with "parameter", or "row" and "field",
// where one is to blame. Each response names its replica in X-Served-By.
//
// # Lists
//
// Users are ordered by (created_at, id): new ones come at the end, so pages do
// not move under a reader. page counts from 1, page_size is 1 to 100 and 20
// when absent. The answer is
//
//	{"data":[{"id":1,"name":"…","email":"…","role":"…","created_at":"…","updated_at":"…"}],
//	 "pagination":{"page":1,"page_size":20,"total":10000,"total_pages":500}}
//
// The total is exact: it is read together with the page, from a tally that the
// writing transactions keep. A page past the end has empty data and the right
// totals. The database walks over all rows before the page, so its cost grows
// with its number; a reader of everything uses after, whose cost does not:
// start with an empty value (?after=), then pass on what the answer gives,
// until that is null. The value is opaque.
//
//	"pagination":{"page_size":20,"next_after":"1577836800000000-20"}
//
// (A user whose transaction began before, and ended after, the reader passed
// its place is missed by such a walk.) With role the users of that role come
// newest first, at most page_size of them, 100 when absent; role goes with
// neither page nor after:
//
//	"pagination":{"page_size":100}
//
// # Writing
//
// A user is {"name","email","role","password" or "password_hash"}, all of them
// strings. E-mail addresses are unique and kept in lower case; role is a
// short identifier, "user" when absent. A password (8 to 72 bytes) is hashed
// with bcrypt by WORKER_POOL_SIZE workers; at most 100 rows of a batch may
// bring one. A password_hash is stored as it is. Neither is ever part of an
// answer. A batch is a JSON array or a sequence of JSON objects (NDJSON), at
// most 8 MiB; its rows count from 1. A duplicate e-mail address, in the batch or in
// the table, is 409.
//
// # Caching
//
// Reads carry a strong ETag of their content, Last-Modified, Cache-Control
// with a max-age of a sixth of CACHE_TTL (1 to 60 s), and Surrogate-Key:
// "users" on all of them, "user-42" for each user that the answer shows,
// "users-list" on lists, "role-admin" where role was asked for. Last-Modified
// is absent for the first second after a change, since a second one would bear
// the same date. Conditional requests get 304. Writes and errors are no-store.
// With Redis, users and lists are kept there for CACHE_TTL and dropped by
// writes; see [Cache].
//
// # Health
//
//	{"status":"ok","timestamp":"…","version":"…","database":"connected","redis":"connected","store":"postgres"}
//
// status is "degraded" while a configured Redis is away, "down" (503) while the
// database is, "stopping" (503) while the service drains. The in-memory store
// (store is "memory") counts as a connected database, no Redis as a
// disconnected one.
//
// # Figures
//
// With 1,000,000 users in PostgreSQL:
//
//	go test -tags prove -run TestProve -count=1 -v ./examples/users
package users
