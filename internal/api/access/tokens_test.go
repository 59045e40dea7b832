package access_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/viaduct-net/viaduct/internal/api/access"
)

func write(t *testing.T, path string, entries ...access.Entry) {
	t.Helper()
	if err := access.WriteFile(path, &access.File{Tokens: entries}); err != nil {
		t.Fatal(err)
	}
}

func token(t *testing.T, p access.Principal, valid time.Duration) (string, access.Entry) {
	t.Helper()
	var expires *time.Time
	if valid != 0 {
		x := time.Now().Add(valid)
		expires = &x
	}
	s, e, err := access.NewToken(p, expires)
	if err != nil {
		t.Fatal(err)
	}
	return s, e
}

func TestTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	a, ea := token(t, acme, time.Hour)
	b, eb := token(t, operator, 0)
	old, eold := token(t, beta, -time.Second)
	write(t, path, ea, eb, eold)
	if text, _ := os.ReadFile(path); strings.Contains(string(text), a) {
		t.Error("the file has the token itself")
	}
	tokens, err := access.LoadTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := tokens.Find(a); err != nil || p != acme {
		t.Errorf("%v, %v", p, err)
	}
	if p, err := tokens.Find(b); err != nil || p != operator {
		t.Errorf("%v, %v", p, err)
	}
	for s, want := range map[string]string{old: "has expired", a + "x": "unknown", "": "no token", "password": "no token"} {
		if p, err := tokens.Find(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", s, p, err, want)
		}
	}
}

// TestTokensReload: a withdrawn token ends, a file that cannot be used changes nothing.
func TestTokensReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	a, ea := token(t, acme, 0)
	b, eb := token(t, operator, 0)
	write(t, path, ea)
	tokens, err := access.LoadTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	access.SetClock(tokens, func() time.Time { return now })
	find := func(s string) bool {
		now = now.Add(2 * time.Second)
		_, err := tokens.Find(s)
		return err == nil
	}
	if !find(a) || find(b) {
		t.Fatal("the first file does not count")
	}
	if err := os.WriteFile(path, []byte("tokens: [{name: x, role: king}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !find(a) {
		t.Error("a bad file has taken the good one's place")
	}
	write(t, path, eb)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if !find(a) || find(b) {
		t.Error("a file that others may open was read")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if find(a) || !find(b) {
		t.Error("the new file does not count")
	}
}

func TestTokenFileRefused(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"tokens: [{name: a, role: king, sha256: " + hash + "}]":                                                "none of admin, operator",
		"tokens: [{name: a, role: tenant, sha256: " + hash + "}]":                                              "whose objects",
		"tokens: [{name: a, role: admin, tenant: x, sha256: " + hash + "}]":                                    "no meaning",
		"tokens: [{role: admin, sha256: " + hash + "}]":                                                        "name: is missing",
		"tokens: [{name: h1, role: agent, sha256: " + hash + "}]":                                              "certificates, not tokens",
		"tokens: [{name: a, role: admin, sha256: abc}]":                                                        "64 hexadecimal digits",
		"tokens: [{name: a, role: admin, sha256: " + hash + "}, {name: a, role: admin, sha256: " + hash + "}]": "there twice",
		"tokens: [{name: a, role: admin, token: secret}]":                                                      "unknown field",
		"tokens: [": "token file",
	} {
		path := filepath.Join(t.TempDir(), "tokens.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := access.ReadFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := access.ReadFile(path); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
			t.Errorf("mode 0640: %v", err)
		}
	}
}

func TestCertificateNames(t *testing.T) {
	for name, c := range map[string]struct {
		subject pkix.Name
		want    access.Principal
		err     string
	}{
		"agent":      {pkix.Name{CommonName: "h1", Organization: []string{"viaduct:agent"}}, host1, ""},
		"tenant":     {pkix.Name{CommonName: "alice", Organization: []string{"viaduct:tenant"}, OrganizationalUnit: []string{"acme"}}, acme, ""},
		"no role":    {pkix.Name{CommonName: "alice", Organization: []string{"Example"}}, access.Principal{}, "names no role"},
		"two roles":  {pkix.Name{CommonName: "a", Organization: []string{"viaduct:admin", "viaduct:tenant"}}, access.Principal{}, "two roles"},
		"other role": {pkix.Name{CommonName: "a", Organization: []string{"viaduct:king"}}, access.Principal{}, "none of"},
		"no name":    {pkix.Name{Organization: []string{"viaduct:agent"}}, access.Principal{}, "name: is missing"},
		"no tenant":  {pkix.Name{CommonName: "a", Organization: []string{"viaduct:tenant"}}, access.Principal{}, "tenant: is missing"},
	} {
		p, err := access.FromCertificate(&x509.Certificate{Subject: c.subject})
		if c.err == "" && (err != nil || p != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}
