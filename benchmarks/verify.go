package main

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// readyWithin bounds the start of a proxy.
const readyWithin = 20 * time.Second

// ask sends one request of the scenario, with a number or key of its own.
func (s *scenario) ask(address string, number int) (*http.Response, []byte, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableCompression: true, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, ServerName: host},
	}}
	t := s.target(address)
	url := strings.NewReplacer("{n}", fmt.Sprintf("%010d", number), "{key}", fmt.Sprintf("%010d", number%max(1, s.keys))).Replace(t.URL)
	r, err := http.NewRequest(t.Method, url, bytes.NewReader(t.Body))
	if err != nil {
		return nil, nil, err
	}
	r.Host = host
	r.Header.Set("Accept-Encoding", "identity")
	for _, f := range t.Header[1:] {
		r.Header.Set(f.Name, f.Value)
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response, body, err
}

// await waits until the proxy answers.
func (s *scenario) await(address string, p *process) error {
	last := errors.New("no answer")
	for end := time.Now().Add(readyWithin); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		select {
		case <-p.ended:
			return errors.New("the process has ended")
		default:
		}
		response, _, err := s.ask(address, 0)
		if err == nil && (response.StatusCode == 200 || response.StatusCode == s.status) {
			return nil
		}
		if last = err; err == nil {
			last = fmt.Errorf("status %d", response.StatusCode)
		}
	}
	return last
}

// verify compares an answer with the origin's, byte for byte.
func (s *scenario) verify(address string) error {
	var response *http.Response
	var body []byte
	var err error
	for try := range 5 { // a limit may let the first ones pass
		if response, body, err = s.ask(address, 1+try); err != nil {
			return err
		}
		if response.StatusCode == s.status {
			break
		}
	}
	if response.StatusCode != s.status {
		return fmt.Errorf("status %d; want %d", response.StatusCode, s.status)
	}
	if s.answer == "" {
		return nil
	}
	coding := response.Header.Get("Content-Encoding")
	if s.needs.Gzip != (coding == "gzip") {
		return fmt.Errorf("content coding %q; gzip is wanted: %v", coding, s.needs.Gzip)
	}
	if coding == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return err
		}
		if body, err = io.ReadAll(z); err != nil {
			return err
		}
	}
	want := listing(answerSizes[s.answer])
	if s.renewed && len(body) == len(want) {
		number := want[len(listingBegin):][:10]
		copy(number, body[len(listingBegin):])
	}
	if !bytes.Equal(body, want) {
		return fmt.Errorf("%d bytes that are not the origin's %d", len(body), len(want))
	}
	return nil
}

// certificate writes a new one, ECDSA P-256, and its key.
func certificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	c := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	k := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})
	for name, text := range map[string][]byte{"cert.pem": c, "key.pem": k, "both.pem": append(append([]byte{}, c...), k...)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
