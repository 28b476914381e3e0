package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gateway/config"
	"gateway/listener"
)

// answerTime bounds the wait for an answer that needs no time to be made.
const answerTime = 10 * time.Second

// operator asks a running gateway at its admin address.
type operator struct {
	http.Client
	base  string // URL without a path
	shown string // the address, for messages
	token string
}

// operatorFlags say how to get to the admin address.
type operatorFlags struct {
	config, address, ca, cert, key *string
}

// tokenVariable is where commands take the token from that ask a gateway
// elsewhere.
const tokenVariable = "GATEWAY_ADMIN_TOKEN"

func newOperatorFlags(cmd *cobra.Command) operatorFlags {
	f := operatorFlags{
		config:  configFlag(cmd),
		address: cmd.Flags().String("address", "", "admin address instead of the configuration's: \"http://host:9180\",\n\"https://host:9180\" or \"unix:/path\"; the token is taken from\n"+tokenVariable),
		ca:      cmd.Flags().String("ca", "", "PEM file with the authorities of the admin address' certificate\n(default: those of the configuration, or the system's)"),
		cert:    cmd.Flags().String("cert", "", "PEM file with the certificate to show, where admin.client_ca is set"),
		key:     cmd.Flags().String("key", "", "PEM file with its key"),
	}
	for _, name := range []string{"ca", "cert", "key"} {
		cmd.MarkFlagFilename(name, "pem", "crt", "key")
	}
	return f
}

// open prepares to ask. The gateway's own configuration tells everything
// unless there is another address.
func (f operatorFlags) open() (*operator, error) {
	var o *operator
	var err error
	if *f.address != "" {
		if o, err = newOperator(*f.address, os.Getenv(tokenVariable), nil); err != nil {
			return nil, usageError{err}
		}
	} else {
		var c *config.Config
		if c, err = config.Load(*f.config); err != nil {
			return nil, problems(err)
		}
		o, err = ownOperator(c)
	}
	if err != nil {
		return nil, err
	}
	secret := o.Transport.(*http.Transport).TLSClientConfig
	if *f.ca != "" {
		secret.ServerName = ""
		if secret.RootCAs, err = authorities(*f.ca); err != nil {
			return nil, err
		}
	}
	if *f.cert != "" || *f.key != "" {
		pair, err := tls.LoadX509KeyPair(*f.cert, *f.key)
		if err != nil {
			return nil, fmt.Errorf("load --cert and --key: %w", err)
		}
		secret.Certificates = []tls.Certificate{pair}
	}
	return o, nil
}

// ownOperator asks the gateway that runs with a configuration.
func ownOperator(c *config.Config) (*operator, error) {
	a := &c.Admin
	if !a.Address.On() {
		return nil, errors.New("admin is off; nothing can be asked")
	}
	token := a.Token
	if token == "" {
		token = a.ReadToken
	}
	secret := &tls.Config{}
	if a.Address.Secure {
		// Whoever can read the configuration knows the certificate: whatever
		// its names and its issuer, it is the right one.
		pool, err := authorities(a.Certificates[0].Cert)
		if err != nil {
			return nil, err
		}
		pem, err := tls.LoadX509KeyPair(a.Certificates[0].Cert, a.Certificates[0].Key)
		if err != nil {
			return nil, fmt.Errorf("load certificate of admin: %w", err)
		}
		secret.RootCAs = pool
		switch leaf := pem.Leaf; {
		case len(leaf.DNSNames) > 0:
			secret.ServerName = strings.Replace(leaf.DNSNames[0], "*", "admin", 1)
		case len(leaf.IPAddresses) > 0:
			secret.ServerName = leaf.IPAddresses[0].String()
		}
	}
	return newOperator(reachable(a.Address.Address), token, secret)
}

// authorities reads a PEM file of certificates.
func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %q", file)
	}
	return pool, nil
}

// newOperator asks at a URL or a Unix socket.
func newOperator(address, token string, secret *tls.Config) (*operator, error) {
	if secret == nil {
		secret = &tls.Config{}
	}
	t := &http.Transport{DisableKeepAlives: true, TLSClientConfig: secret}
	o := &operator{Client: http.Client{Transport: t}, base: address, shown: address, token: token}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		o.base = "http://localhost"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		return o, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf(`unexpected address %q; want "http://host:9180", "https://host:9180" or "unix:/path"`, address)
	}
	o.base = u.Scheme + "://" + u.Host
	return o, nil
}

// reachable is where a socket that listens on an address can be connected to:
// a URL, or "unix:" and a path.
func reachable(a listener.Address) string {
	if a.Network == "unix" {
		return "unix:" + a.Name
	}
	at := a.Name
	if host, port, err := net.SplitHostPort(at); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			at = net.JoinHostPort("localhost", port)
		}
	}
	if a.Secure {
		return "https://" + at
	}
	return "http://" + at
}

// do sends a request and returns the answer if its status is 200; any other is a
// *refusal. The caller closes its body.
func (o *operator) do(ctx context.Context, method, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, o.base+path, nil)
	if err != nil {
		return nil, err
	}
	if o.token != "" {
		r.Header.Set("Authorization", "Bearer "+o.token)
	}
	resp, err := o.Client.Do(r)
	if err != nil {
		var request *url.Error
		if errors.As(err, &request) { // its URL says no more
			err = request.Err
		}
		return nil, fmt.Errorf("ask %s: %w", o.shown, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	const most = 4 << 10
	text, _ := io.ReadAll(io.LimitReader(resp.Body, most))
	var problem struct{ Detail string }
	if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
		problem.Detail, _, _ = strings.Cut(strings.TrimSpace(string(text)), "\n") // whoever it is from
	}
	return nil, &refusal{shown: o.shown, code: resp.StatusCode, status: resp.Status, detail: problem.Detail}
}

// refusal is an answer other than 200.
type refusal struct {
	shown  string // who gave it
	code   int
	status string // the code with its text
	detail string // may be ""
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("ask %s: %s", r.shown, r.status)
	if r.detail != "" {
		text += ": " + r.detail
	}
	return text
}

// ready fails unless a path that answers 200 when all is well does so in time.
func (o *operator) ready(path string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	resp, err := o.do(ctx, "GET", path)
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	return resp.Body.Close()
}
