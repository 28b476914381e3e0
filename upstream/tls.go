package upstream

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
)

// secret is a pool's TLS settings with its files read.
type secret struct {
	config *tls.Config // without ServerName
	digest string      // changes whenever the settings or the files' contents do
	name   string      // TLSOptions.ServerName
}

// load reads the files. The error names the option and the file.
func (o *TLSOptions) load() (*secret, error) {
	hash := sha256.New()
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		InsecureSkipVerify: !o.Verify,
	}
	fmt.Fprintf(hash, "%t\n", o.Verify)
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: read certificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: no certificate in %q; want PEM", o.CA)
		}
		fmt.Fprintf(hash, "ca %d %s\n", len(pem), pem)
	}
	if o.Cert != "" {
		certPEM, err := os.ReadFile(o.Cert)
		if err != nil {
			return nil, fmt.Errorf("tls.cert: read certificate: %w", err)
		}
		keyPEM, err := os.ReadFile(o.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.key: read key: %w", err)
		}
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, fmt.Errorf("tls.cert: use %q with key %q: %w", o.Cert, o.Key, err)
		}
		config.Certificates = []tls.Certificate{pair}
		fmt.Fprintf(hash, "cert %d %s\n%d %s\n", len(certPEM), certPEM, len(keyPEM), keyPEM)
	}
	return &secret{config: config, digest: hex.EncodeToString(hash.Sum(nil)), name: o.ServerName}, nil
}

// serverName is the name that a target's certificate must be valid for.
func (s *secret) serverName(t target) string {
	if s.name != "" {
		return s.name
	}
	return t.host()
}

// forName is the configuration for connections to a server of that name.
func (s *secret) forName(name string) *tls.Config {
	c := s.config.Clone()
	c.ServerName = name
	return c
}
