package listener

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Keys are the loaded certificates and rules of TLS. The files are watched
// until Close if the options say so. Nil keys are those of no certificates.
type Keys struct {
	options TLS
	log     *slog.Logger
	config  atomic.Pointer[tls.Config]
	chain   atomic.Pointer[chain]
	stop    chan struct{}
	once    sync.Once
}

// chain are the certificates of one moment.
type chain struct {
	all    []tls.Certificate
	byName map[string][]int // lower-case name, "*.example.com" for wildcards: indexes into all
}

// watchInterval is how often the files are looked at.
const watchInterval = time.Second

// LoadKeys reads all files; any that cannot be used is an error. The caller
// closes the keys when no front uses them any more. Without certificates there
// are no keys: nil.
func LoadKeys(o TLS, log *slog.Logger) (*Keys, error) {
	if len(o.Certificates) == 0 {
		return nil, nil
	}
	k := &Keys{options: o, log: log, stop: make(chan struct{})}
	// The stamps are taken first: a file that changes meanwhile is seen.
	stamps := k.stamps()
	if err := k.load(); err != nil {
		return nil, err
	}
	if o.Watch {
		go k.watch(stamps)
	}
	return k, nil
}

// Close stops watching the files.
func (k *Keys) Close() {
	if k != nil {
		k.once.Do(func() { close(k.stop) })
	}
}

// Expiry is when a certificate expires.
type Expiry struct {
	Name     string // its first name
	NotAfter time.Time
}

// Expiries are those of all certificates, in the order of the configuration.
func (k *Keys) Expiries() []Expiry {
	if k == nil {
		return nil
	}
	all := k.chain.Load().all
	list := make([]Expiry, len(all))
	for i := range all {
		leaf := all[i].Leaf
		list[i] = Expiry{Name: leaf.Subject.CommonName, NotAfter: leaf.NotAfter}
		switch {
		case len(leaf.DNSNames) > 0:
			list[i].Name = leaf.DNSNames[0]
		case len(leaf.IPAddresses) > 0:
			list[i].Name = leaf.IPAddresses[0].String()
		}
	}
	return list
}

// load reads the files and installs what they hold, or changes nothing.
func (k *Keys) load() error {
	next := &chain{byName: make(map[string][]int)}
	for i, c := range k.options.Certificates {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return fmt.Errorf("load certificate %q with key %q: %w", c.Cert, c.Key, err)
		}
		next.all = append(next.all, pair)
		names := pair.Leaf.DNSNames
		if len(names) == 0 && pair.Leaf.Subject.CommonName != "" {
			names = []string{pair.Leaf.Subject.CommonName}
		}
		for _, name := range names {
			name = strings.ToLower(name)
			next.byName[name] = append(next.byName[name], i)
		}
	}
	var pool *x509.CertPool
	if k.options.ClientCA != "" {
		pem, err := os.ReadFile(k.options.ClientCA)
		if err != nil {
			return fmt.Errorf("load client authorities: %w", err)
		}
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("load client authorities: no certificate in %q", k.options.ClientCA)
		}
	}
	k.chain.Store(next)
	// A new config has new ticket keys. Sessions survive new certificates, but
	// not new authorities: resumption does not ask for the client's certificate
	// again.
	if old := k.config.Load(); old == nil || pool != nil && !pool.Equal(old.ClientCAs) {
		k.config.Store(k.newConfig(pool))
	}
	return nil
}

func (k *Keys) newConfig(clients *x509.CertPool) *tls.Config {
	c := &tls.Config{
		GetCertificate: k.pick,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		// Small first records would cost a system call each.
		DynamicRecordSizingDisabled: true,
	}
	if k.options.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	if clients != nil {
		c.ClientCAs, c.ClientAuth = clients, tls.RequireAndVerifyClientCert
	}
	return c
}

// pick chooses the certificate for a handshake: one with the exact name, then a
// wildcard, of those the first that the client can use; else the first of all.
func (k *Keys) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	ch := k.chain.Load()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	lists := [2][]int{ch.byName[name]}
	if _, parent, ok := strings.Cut(name, "."); ok {
		lists[1] = ch.byName["*."+parent]
	}
	for _, list := range lists {
		for n, i := range list {
			// The last candidate is taken as it is: the handshake's error then
			// says what does not fit.
			if c := &ch.all[i]; n == len(list)-1 || hello.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
	}
	return &ch.all[0], nil
}

// stamp is what tells a file from its successor.
type stamp struct {
	info fs.FileInfo // nil when the file cannot be looked at
}

func (a stamp) same(b stamp) bool {
	if a.info == nil || b.info == nil {
		return a.info == b.info
	}
	return a.info.ModTime().Equal(b.info.ModTime()) && a.info.Size() == b.info.Size() && os.SameFile(a.info, b.info)
}

// stamps are those of all files. Symbolic links are followed, since that is how
// Kubernetes swaps secrets.
func (k *Keys) stamps() []stamp {
	var list []stamp
	add := func(path string) {
		info, _ := os.Stat(path)
		list = append(list, stamp{info})
	}
	for _, c := range k.options.Certificates {
		add(c.Cert)
		add(c.Key)
	}
	if k.options.ClientCA != "" {
		add(k.options.ClientCA)
	}
	return list
}

// watch loads the files again when one has changed. While they do not fit
// together, the old ones stay.
func (k *Keys) watch(known []stamp) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-k.stop:
			return
		}
		now := k.stamps()
		changed := false
		for i := range now {
			changed = changed || !now[i].same(known[i])
		}
		if !changed {
			continue
		}
		known = now
		if err := k.load(); err != nil {
			k.log.Warn("certificates have changed and cannot be used, the old ones stay", "error", err)
		} else {
			k.log.Info("certificates loaded again")
		}
	}
}

// Server makes the server's side of a TLS connection. The handshake is made by
// whoever reads first; its deadline is theirs.
func (k *Keys) Server(conn net.Conn) *tls.Conn { return tls.Server(conn, k.config.Load()) }
