// Package pki makes and keeps the certificates of a small installation: one authority, and what it signs for servers, hosts and
// people. Keys are ECDSA P-256; files are PEM, NAME.crt and NAME.key in one directory.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Authority is the name of the CA's files.
const Authority = "ca"

// backdate makes certificates valid on machines whose clocks are a little behind.
const backdate = 5 * time.Minute

// Request is what a certificate says.
type Request struct {
	Subject pkix.Name
	Names   []string // DNS names and IP addresses of a server
	Server  bool     // others connect to it; every certificate may also be a client's
	Valid   time.Duration
}

// Dir is a directory of certificates.
type Dir string

func (d Dir) cert(name string) string { return filepath.Join(string(d), name+".crt") }
func (d Dir) key(name string) string  { return filepath.Join(string(d), name+".key") }

// Files are those of a certificate, for who trusts what the authority has signed.
func (d Dir) Files(name string) Files {
	return Files{CA: d.cert(Authority), Cert: d.cert(name), Key: d.key(name)}
}

// CreateAuthority makes the CA. One that is there is an error that wraps fs.ErrExist: what it signed would be worth nothing.
func (d Dir) CreateAuthority(valid time.Duration) (*x509.Certificate, error) {
	if _, err := os.Lstat(d.cert(Authority)); err == nil {
		return nil, fmt.Errorf("certificate authority %s: %w", d.cert(Authority), fs.ErrExist)
	}
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, err
	}
	t, err := template(pkix.Name{CommonName: "Viaduct CA", SerialNumber: fmt.Sprint(time.Now().Unix())}, valid)
	if err != nil {
		return nil, err
	}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return d.sign(Authority, t, nil, nil)
}

// Issue makes NAME.crt and NAME.key, in place of what was there.
func (d Dir) Issue(name string, r Request) (*x509.Certificate, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	ca, caKey, err := d.load(Authority)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no certificate authority in %s: make one with \"viaduct certs ca\": %w", string(d), err)
	}
	if err != nil {
		return nil, err
	}
	t, err := template(r.Subject, r.Valid)
	if err != nil {
		return nil, err
	}
	if t.NotAfter.After(ca.NotAfter) {
		t.NotAfter = ca.NotAfter
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if r.Server {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		if len(r.Names) == 0 {
			return nil, errors.New("a server's certificate needs the names or addresses that clients connect to")
		}
	}
	for _, n := range r.Names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return d.sign(name, t, ca, caKey)
}

// Renew makes a new key and certificate that says what the old one said, as long as that did.
func (d Dir) Renew(name string) (*x509.Certificate, error) {
	old, err := d.Read(name)
	if err != nil {
		return nil, err
	}
	if old.IsCA {
		return nil, errors.New("the authority cannot be renewed: make another directory with a new one, and let servers and hosts trust both while certificates change")
	}
	r := Request{Subject: old.Subject, Names: old.DNSNames, Valid: old.NotAfter.Sub(old.NotBefore) - backdate}
	for _, ip := range old.IPAddresses {
		r.Names = append(r.Names, ip.String())
	}
	r.Server = slices.Contains(old.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	return d.Issue(name, r)
}

// Read reads the certificate NAME.crt.
func (d Dir) Read(name string) (*x509.Certificate, error) {
	b, err := os.ReadFile(d.cert(name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: no certificate in it", d.cert(name))
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.cert(name), err)
	}
	return c, nil
}

// List names the certificates, the authority first.
func (d Dir) List() ([]string, error) {
	files, err := filepath.Glob(d.cert("*"))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".crt"))
	}
	slices.SortFunc(names, func(a, b string) int {
		switch {
		case a == Authority:
			return -1
		case b == Authority:
			return 1
		}
		return strings.Compare(a, b)
	})
	return names, nil
}

func checkName(name string) error {
	if name == "" || name == Authority || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("%q cannot be the name of a certificate: it is that of its files", name)
	}
	return nil
}

func (d Dir) load(name string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	c, err := d.Read(name)
	if err != nil {
		return nil, nil, err
	}
	b, err := os.ReadFile(d.key(name))
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, nil, fmt.Errorf("%s: no key in it", d.key(name))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.key(name), err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || !ec.PublicKey.Equal(c.PublicKey) {
		return nil, nil, fmt.Errorf("%s is not the key of %s", d.key(name), d.cert(name))
	}
	return c, ec, nil
}

func template(subject pkix.Name, valid time.Duration) (*x509.Certificate, error) {
	if valid <= 0 {
		return nil, errors.New("a certificate must be valid for some time")
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-backdate), NotAfter: now.Add(valid)}, nil
}

// sign makes a key and has the CA sign it, or itself when there is none yet.
func (d Dir) sign(name string, t, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if ca == nil {
		ca, caKey = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	// The key first: a reader that finds the new certificate finds its key too.
	if err := replace(d.key(name), "PRIVATE KEY", pkcs8, 0o600); err != nil {
		return nil, err
	}
	if err := replace(d.cert(name), "CERTIFICATE", der, 0o644); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// replace writes a file in one step.
func replace(path, kind string, der []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
