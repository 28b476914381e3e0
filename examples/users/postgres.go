package users

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	queryTimeout   = 5 * time.Second // for each query, waiting for a connection included
	connectTimeout = 2 * time.Second
)

// The queries. A page and the totals come from one snapshot, in one round
// trip. The lists' index does the ordering; deep pages are found in it alone
// and only their rows are read from the table.
const (
	userColumns = `id, name, email, role, created_at, updated_at`

	pageQuery = `
SELECT t.total, t.changed_at,
       coalesce(u.id, 0), coalesce(u.name, ''), coalesce(u.email, ''), coalesce(u.role, ''),
       coalesce(u.created_at, 'epoch'), coalesce(u.updated_at, 'epoch')
FROM (SELECT sum(total)::bigint AS total, max(changed_at) AS changed_at FROM users_tally) t
LEFT JOIN (
    SELECT ` + userColumns + ` FROM users
    JOIN (SELECT id FROM users ORDER BY created_at, id LIMIT $1 OFFSET $2) k USING (id)
) u ON true
ORDER BY u.created_at, u.id`

	cursorQuery = `
SELECT 0::bigint, (SELECT max(changed_at) FROM users_tally), ` + userColumns + `
FROM users WHERE (created_at, id) > ($1, $2) ORDER BY created_at, id LIMIT $3`

	roleQuery = `
SELECT 0::bigint, (SELECT max(changed_at) FROM users_tally), ` + userColumns + `
FROM users WHERE role = $1 ORDER BY created_at DESC, id DESC LIMIT $2`

	userQuery = `SELECT ` + userColumns + ` FROM users WHERE id = $1`

	insertQuery = `
INSERT INTO users (name, email, password_hash, role) VALUES ($1, $2, $3, $4) RETURNING ` + userColumns

	updateQuery = `
UPDATE users SET name = $2, email = $3, role = $4, updated_at = greatest(now(), updated_at),
    password_hash = CASE WHEN $5 = '' THEN password_hash ELSE $5 END
WHERE id = $1 RETURNING ` + userColumns

	deleteQuery = `DELETE FROM users WHERE id = $1`

	// reserveQuery names the rows of a batch before they are copied, so that
	// the answer can tell their ids.
	reserveQuery = `SELECT nextval(pg_get_serial_sequence('users', 'id')), now() FROM generate_series(1, $1)`

	takenQuery = `SELECT email FROM users WHERE email = ANY($1)`
)

// PostgresOptions configures the Store on PostgreSQL.
type PostgresOptions struct {
	// URL is a postgres:// URL or a key=value string.
	URL string

	// PoolSize is the largest number of connections, 1 to 1,000; 0 means four
	// times the CPUs. Half of them are kept open. One more watches the
	// database's health, so that a busy pool does not look like a dead
	// database.
	PoolSize int

	// Seed fills an empty table with so many users of the deterministic
	// sequence, 0 to 1,000,000.
	Seed int

	// StartTimeout bounds the wait for a database that does not answer yet;
	// migrations, once begun, may take longer. 0 means not to wait.
	StartTimeout time.Duration

	// Tracer, when not nil, is told of each query.
	Tracer pgx.QueryTracer

	Log *slog.Logger
}

// Postgres is the Store on PostgreSQL. Each query has 5 seconds, on both
// sides. Statements are prepared once per connection, on their first use.
type Postgres struct {
	pool   *pgxpool.Pool
	health *pgxpool.Pool

	// lost is when a connection broke last, in nanoseconds since 1970: those
	// that lay idle at that time are suspects.
	lost atomic.Int64
}

// NewPostgres brings the schema up to date, seeds it, and opens the pool.
func NewPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	config.ConnConfig.ConnectTimeout = connectTimeout
	config.ConnConfig.RuntimeParams["application_name"] = "users"
	if err := prepare(ctx, config.ConnConfig, &o); err != nil {
		return nil, err
	}

	p := &Postgres{}
	config.ConnConfig.Tracer = o.Tracer
	config.ConnConfig.RuntimeParams["statement_timeout"] = milliseconds(queryTimeout)
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = milliseconds(2 * queryTimeout)
	config.MaxConns = int32(o.PoolSize)
	if o.PoolSize == 0 {
		config.MaxConns = int32(4 * runtime.GOMAXPROCS(0))
	}
	config.MinConns = 0
	config.MinIdleConns = config.MaxConns / 2
	config.MaxConnLifetime = time.Hour
	config.MaxConnLifetimeJitter = 5 * time.Minute
	config.MaxConnIdleTime = 30 * time.Minute
	config.PingTimeout = time.Second
	config.ShouldPing = func(_ context.Context, c pgxpool.ShouldPingParams) bool {
		return c.IdleDuration > time.Second || time.Now().Add(-c.IdleDuration).UnixNano() <= p.lost.Load()
	}
	if p.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}

	config = config.Copy()
	config.ConnConfig.Tracer = nil
	config.MaxConns, config.MinIdleConns = 1, 0
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	if p.health, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		p.pool.Close()
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	return p, nil
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

func (p *Postgres) List(ctx context.Context, q Query, page *Page) error {
	return p.read(ctx, func(ctx context.Context) error {
		page.Reset() // a second attempt starts anew
		var rows pgx.Rows
		var err error
		switch q.Kind {
		case ByPage:
			rows, err = p.pool.Query(ctx, pageQuery, q.Size, (q.Page-1)*q.Size)
		case ByCursor:
			rows, err = p.pool.Query(ctx, cursorQuery, time.UnixMicro(q.After.Created), q.After.ID, q.Size+1)
		case ByRole:
			rows, err = p.pool.Query(ctx, roleQuery, q.Role, q.Size)
		}
		if err != nil {
			return err
		}
		var u User
		for rows.Next() {
			err := rows.Scan(&page.Total, &page.Changed, &u.ID, &u.Name, &u.Email, &u.Role, &u.CreatedAt, &u.UpdatedAt)
			if err != nil {
				rows.Close()
				return err
			}
			if u.ID != 0 { // 0: past the end there are totals, but no user
				page.Users = append(page.Users, u.utc())
			}
		}
		page.Changed = page.Changed.UTC()
		if q.Kind == ByCursor {
			page.trim(q.Size)
		}
		return rows.Err()
	})
}

// utc gives the times the form in which they are shown: pgx makes them local.
func (u User) utc() User {
	u.CreatedAt, u.UpdatedAt = u.CreatedAt.UTC(), u.UpdatedAt.UTC()
	return u
}

func scanUser(row pgx.Row) (User, error) {
	var u User
	err := row.Scan(&u.ID, &u.Name, &u.Email, &u.Role, &u.CreatedAt, &u.UpdatedAt)
	return u.utc(), err
}

func (p *Postgres) User(ctx context.Context, id int64) (u User, err error) {
	err = p.read(ctx, func(ctx context.Context) error {
		u, err = scanUser(p.pool.QueryRow(ctx, userQuery, id))
		return err
	})
	return u, err
}

func (p *Postgres) Update(ctx context.Context, id int64, d Draft) (u User, err error) {
	err = p.write(ctx, func(ctx context.Context) error {
		u, err = scanUser(p.pool.QueryRow(ctx, updateQuery, id, d.Name, d.Email, d.Role, d.PasswordHash))
		if isConflict(err) {
			return &ConflictError{Row: 1}
		}
		return err
	})
	return u, err
}

func (p *Postgres) Delete(ctx context.Context, id int64) error {
	return p.write(ctx, func(ctx context.Context) error {
		tag, err := p.pool.Exec(ctx, deleteQuery, id)
		if err == nil && tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		return err
	})
}

// Create sends one user as one statement, and more as one transaction with one
// COPY.
func (p *Postgres) Create(ctx context.Context, drafts []Draft) (created []User, err error) {
	// The row that was in the way may be gone when it is looked for: then there
	// is nothing to report, and nothing in the way.
	for range 3 {
		if len(drafts) == 1 {
			created, err = p.insert(ctx, &drafts[0])
		} else {
			created, err = p.copy(ctx, drafts)
		}
		if !isConflict(err) {
			return created, err
		}
		row, err := p.findTaken(ctx, drafts)
		if err != nil {
			return nil, err
		}
		if row > 0 {
			return nil, &ConflictError{Row: row}
		}
	}
	return nil, &ConflictError{}
}

func (p *Postgres) insert(ctx context.Context, d *Draft) (created []User, err error) {
	err = p.write(ctx, func(ctx context.Context) error {
		u, err := scanUser(p.pool.QueryRow(ctx, insertQuery, d.Name, d.Email, d.PasswordHash, d.Role))
		created = []User{u}
		return err
	})
	return created, err
}

func (p *Postgres) copy(ctx context.Context, drafts []Draft) (created []User, err error) {
	err = p.write(ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
			created = make([]User, 0, len(drafts))
			rows, err := tx.Query(ctx, reserveQuery, len(drafts))
			if err != nil {
				return err
			}
			var id int64
			var now time.Time
			_, err = pgx.ForEachRow(rows, []any{&id, &now}, func() error {
				d := &drafts[len(created)]
				created = append(created, User{id, d.Name, d.Email, d.Role, now.UTC(), now.UTC()})
				return nil
			})
			if err != nil {
				return err
			}
			_, err = tx.CopyFrom(ctx, pgx.Identifier{"users"},
				[]string{"id", "name", "email", "password_hash", "role", "created_at", "updated_at"},
				pgx.CopyFromSlice(len(drafts), func(i int) ([]any, error) {
					u := &created[i]
					return []any{u.ID, u.Name, u.Email, drafts[i].PasswordHash, u.Role, u.CreatedAt, u.UpdatedAt}, nil
				}))
			return err
		})
	})
	return created, err
}

// findTaken is the row of the first draft whose address the table, or an
// earlier draft, has already; 0 means none.
func (p *Postgres) findTaken(ctx context.Context, drafts []Draft) (int, error) {
	emails := make([]string, len(drafts))
	for i := range drafts {
		emails[i] = drafts[i].Email
	}
	taken := make(map[string]bool, len(drafts))
	err := p.read(ctx, func(ctx context.Context) error {
		clear(taken)
		rows, err := p.pool.Query(ctx, takenQuery, emails)
		if err != nil {
			return err
		}
		var email string
		_, err = pgx.ForEachRow(rows, []any{&email}, func() error {
			taken[email] = true
			return nil
		})
		return err
	})
	if err != nil {
		return 0, err
	}
	for i, email := range emails {
		if taken[email] {
			return i + 1, nil
		}
		taken[email] = true
	}
	return 0, nil
}

// Ping asks the database on a connection of its own.
func (p *Postgres) Ping(ctx context.Context) error {
	return p.health.Ping(ctx)
}

// Close waits for the queries that are running.
func (p *Postgres) Close() {
	p.pool.Close()
	p.health.Close()
}

// read runs a query that may run twice: when a connection breaks under it, as
// all do that lay in the pool when the database was restarted, it is tried once
// more. The pool then tests the other suspects before it hands them out.
func (p *Postgres) read(ctx context.Context, query func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	err := query(ctx)
	if isBroken(err) && ctx.Err() == nil {
		p.lost.Store(time.Now().UnixNano())
		err = query(ctx)
	}
	return p.judge(err)
}

// write runs a query that may run once only: when its connection breaks,
// nobody knows what became of it.
func (p *Postgres) write(ctx context.Context, query func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return p.judge(query(ctx))
}

// judge translates an error into one that Store promises.
func (p *Postgres) judge(err error) error {
	var sql *pgconn.PgError
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrNotFound
	case isBroken(err):
		p.lost.Store(time.Now().UnixNano())
		return fmt.Errorf("ask database: %w: %w", ErrUnavailable, err)
	case errors.As(err, &sql) && isPassing(sql.Code):
		return fmt.Errorf("ask database: %w: %w", ErrUnavailable, err)
	}
	return err
}

// isBroken says that the connection failed, or was closed by a server that is
// shutting down, rather than the query.
func isBroken(err error) bool {
	var sql *pgconn.PgError
	var conflict *ConflictError
	switch {
	case err == nil, errors.Is(err, pgx.ErrNoRows), errors.Is(err, ErrNotFound), errors.As(err, &conflict):
		return false
	case errors.As(err, &sql):
		return sql.Code == "57P01" || sql.Code == "57P02" || sql.Code == "57P03"
	}
	return true
}

// isPassing says of an SQLSTATE that it speaks of the server's condition:
// connection exceptions, insufficient resources, a statement that took too
// long, a deadlock, a standby.
func isPassing(code string) bool {
	switch code[:2] {
	case "08", "40", "53", "57", "58":
		return true
	}
	return code == "25006"
}

func isConflict(err error) bool {
	var sql *pgconn.PgError
	return errors.As(err, &sql) && sql.Code == "23505" && sql.ConstraintName == "users_email_key"
}
