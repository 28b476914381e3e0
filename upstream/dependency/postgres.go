package dependency

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What is asked of Postgres. Plain queries in the simple protocol, so that
// connection poolers in between have nothing to object to.
const (
	aliveQuery   = "SELECT 1"
	primaryQuery = "SELECT pg_is_in_recovery()"

	// While streaming, a standby that has replayed all that it received is not
	// behind, however long ago the last transaction was.
	lagQuery = `SELECT pg_is_in_recovery(), CASE
		WHEN NOT pg_is_in_recovery() THEN 0
		WHEN EXISTS (SELECT FROM pg_stat_wal_receiver) AND pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn() THEN 0
		ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END`
)

// postgres is a session with a Postgres server.
type postgres struct {
	conn    *pgconn.PgConn
	options *Options
}

func parsePostgres(o *Options) (backend, error) {
	own := *o
	b := backend{kind: Postgres, open: func(ctx context.Context) (session, error) { return openPostgres(ctx, &own) }}
	config, err := postgresConfig(&own)
	if err != nil {
		return b, err
	}
	if config.Password != "" { // it may come from elsewhere
		b.secrets = secrets{config.Password}
	}
	return b, nil
}

// probing marks the context of a probe.
type probing struct{}

var errNoCancel = errors.New("queries of probes are not cancelled")

// postgresConfig reads the URL, and the files that it names.
func postgresConfig(o *Options) (*pgconn.Config, error) {
	config, err := pgconn.ParseConfig(o.URL)
	if err != nil {
		text := err.Error() // "cannot parse `URL`: reason"
		return nil, errors.New(text[max(0, strings.LastIndex(text, "`: ")+len("`: ")):])
	}
	for key := range config.RuntimeParams {
		switch key { // those of pgx; Postgres would refuse them
		case "default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity":
			delete(config.RuntimeParams, key)
		}
		if strings.HasPrefix(key, "pool_") {
			delete(config.RuntimeParams, key)
		}
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "gateway"
	}
	// The deadline is the probe's. A host that hangs leaves time for the others.
	config.ConnectTimeout = 0
	hosts := map[string]bool{net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))): true}
	for _, f := range config.Fallbacks { // the same host again, if without TLS
		hosts[net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))] = true
	}
	if len(hosts) > 1 {
		config.ConnectTimeout = o.Timeout / time.Duration(len(hosts))
	}
	// When a query runs out of time, pgconn opens a connection to cancel it,
	// which may hang for 15 seconds in the background. A probe leaves no
	// query behind that is worth it.
	dialer := new(net.Dialer)
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if ctx.Value(probing{}) == nil {
			return nil, errNoCancel
		}
		return dialer.DialContext(ctx, network, addr)
	}
	return config, nil
}

func openPostgres(ctx context.Context, o *Options) (session, error) {
	// Read anew each time: certificates may have changed.
	config, err := postgresConfig(o)
	if err != nil {
		return nil, err
	}
	conn, err := pgconn.ConnectConfig(context.WithValue(ctx, probing{}, true), config)
	if err != nil {
		return nil, concise(err)
	}
	return &postgres{conn, o}, nil
}

// concise is the cause among all that pgconn tells when it could not connect:
// the first answer of a server if there is one, else what happened to the
// first connection.
func concise(err error) error {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer
	}
	var socket *net.OpError
	if errors.As(err, &socket) {
		return socket
	}
	var lookup *net.DNSError
	if errors.As(err, &lookup) {
		return lookup
	}
	return err
}

func (p *postgres) ask(ctx context.Context) error {
	query := aliveQuery
	switch {
	case p.options.Primary:
		query = primaryQuery
	case p.options.MaxLag > 0:
		query = lagQuery
	}
	results, err := p.conn.Exec(ctx, query).ReadAll()
	if err != nil {
		return concise(err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return errors.New("unexpected answer; want one row")
	}
	return judgePostgres(p.options, results[0].Rows[0])
}

// judgePostgres judges a row that answers the query for these options.
func judgePostgres(o *Options, row [][]byte) error {
	switch {
	case !o.Primary && o.MaxLag == 0:
		return nil
	case len(row) == 0 || o.MaxLag > 0 && len(row) < 2:
		return errors.New("unexpected answer; want more columns")
	case string(row[0]) == "f":
		return nil
	case o.Primary:
		return errors.New("in recovery, not a primary")
	case row[1] == nil:
		return errors.New("replay lag is unknown; nothing was replayed yet")
	}
	seconds, err := strconv.ParseFloat(string(row[1]), 64)
	if err != nil {
		return fmt.Errorf("unexpected replay lag %q", row[1])
	}
	if !(seconds <= o.MaxLag.Seconds()) {
		return fmt.Errorf("replay is %.3fs behind; want at most %v", seconds, o.MaxLag)
	}
	return nil
}

// close says goodbye if that takes no time. After a failed query pgconn has
// begun to close the connection in the background, waiting for the server;
// closing the socket ends that.
func (p *postgres) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	p.conn.Close(ctx)
	p.conn.Conn().Close()
}

// closeTimeout bounds the goodbye to a server: a few bytes that fit into the
// socket's buffer unless something is very wrong.
const closeTimeout = 100 * time.Millisecond
