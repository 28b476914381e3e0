package users

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// prepareLock is the advisory lock that replicas which start together take
// turns with; the number is arbitrary.
const prepareLock = 0x75736572_73

// prepareTimeout bounds one attempt: migrations may have to build an index.
const prepareTimeout = 10 * time.Minute

// prepare migrates and seeds the database. While it does not answer, it is
// tried again until the start timeout is over.
func prepare(ctx context.Context, config *pgx.ConnConfig, o *PostgresOptions) error {
	deadline := time.Now().Add(o.StartTimeout)
	for {
		err := prepareOnce(ctx, config, o.Seed, o.Log)
		if err == nil || !mayPass(err) || time.Now().After(deadline) {
			return err
		}
		o.Log.Warn("database does not answer yet", "error", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// mayPass says whether waiting may help: a wrong password or a bad migration
// stays what it is.
func mayPass(err error) bool {
	var sql *pgconn.PgError
	return !errors.As(err, &sql) || isPassing(sql.Code)
}

func prepareOnce(ctx context.Context, config *pgx.ConnConfig, seed int, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to database: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(ctx) // and with it goes the lock
	}()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(prepareLock)); err != nil {
		return fmt.Errorf("lock database for migration: %w", err)
	}
	if err := migrate(ctx, config, log); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	if seed > 0 {
		if err := seedDatabase(ctx, conn, seed); err != nil {
			return fmt.Errorf("seed database: %w", err)
		}
	}
	return nil
}

func migrate(ctx context.Context, config *pgx.ConnConfig, log *slog.Logger) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName("users_schema"), goose.WithDisableGlobalRegistry(true), goose.WithSlog(log))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// seedDatabase fills an empty table.
func seedDatabase(ctx context.Context, conn *pgx.Conn, n int) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var some bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM users)").Scan(&some); err != nil || some {
			return err
		}
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"users"},
			[]string{"name", "email", "password_hash", "role", "created_at", "updated_at"},
			pgx.CopyFromSlice(n, func(i int) ([]any, error) {
				d, created := seedUser(i)
				return []any{d.Name, d.Email, d.PasswordHash, d.Role, created, created}, nil
			}))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "ANALYZE users")
		return err
	})
}
