package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
)

// TokenPrefix begins every token, so that scanners for secrets recognize them.
const TokenPrefix = "viaduct_"

// Entry is one token in the file. The token itself is not there, only its hash: it has 256 random bits, so one round suffices.
type Entry struct {
	Name    string     `yaml:"name"`
	Role    Role       `yaml:"role"`
	Tenant  string     `yaml:"tenant,omitempty"`
	SHA256  string     `yaml:"sha256"` // hexadecimal
	Expires *time.Time `yaml:"expires,omitempty"`
}

// File is the token file.
type File struct {
	Tokens []Entry `yaml:"tokens"`
}

// NewToken makes a token and its entry.
func NewToken(p Principal, expires *time.Time) (string, Entry, error) {
	if p.Role == Agent {
		return "", Entry{}, fmt.Errorf("agents have certificates, which name their host: viaduct certs host NAME")
	}
	if err := p.Validate(); err != nil {
		return "", Entry{}, err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	token := TokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	return token, Entry{Name: p.Name, Role: p.Role, Tenant: p.Tenant, SHA256: hex.EncodeToString(sum[:]), Expires: expires}, nil
}

// ReadFile reads a token file, which nobody but its owner may be able to open.
func ReadFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	if err := private(path, info); err != nil {
		return nil, err
	}
	var t File
	if err := yaml.NewDecoder(f, yaml.Strict()).Decode(&t); err != nil {
		return nil, fmt.Errorf("token file %s: %w", path, err)
	}
	seen := map[string]bool{}
	for i, e := range t.Tokens {
		p := Principal{Name: e.Name, Role: e.Role, Tenant: e.Tenant}
		err := p.Validate()
		sum, bad := hex.DecodeString(e.SHA256)
		switch {
		case e.Role == Agent:
			err = errors.New("role: agents have certificates, not tokens")
		case err == nil && (bad != nil || len(sum) != sha256.Size):
			err = errors.New("sha256: is not 64 hexadecimal digits")
		case err == nil && seen[e.Name]:
			err = errors.New("name: is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("token file %s: tokens[%d] %s: %w", path, i, e.Name, err)
		}
		seen[e.Name] = true
	}
	return &t, nil
}

// private refuses a file that others can open, or that belongs to somebody else.
func private(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("token file %s: others may open it (mode %04o): chmod 0600 %s", path, mode, path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("token file %s: belongs to user %d: chown it to the server's", path, st.Uid)
	}
	return nil
}

// WriteFile replaces a token file in one step, for its owner alone.
func WriteFile(path string, t *File) error {
	b, err := yaml.Marshal(t)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tokens-*") // mode 0600
	if err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append([]byte("# Made by \"viaduct token\". Of each token only the hash is kept.\n"), b...))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("token file: %w", err)
	}
	return os.Rename(tmp.Name(), path)
}

// checkEvery bounds how often the file is looked at for changes.
const checkEvery = time.Second

// Tokens are those of a file, read again when it changes. A file that cannot be used leaves the last good one in force. Safe for concurrent use.
type Tokens struct {
	path string
	log  *slog.Logger
	now  func() time.Time

	mu      sync.Mutex
	checked time.Time
	seen    stamp
	byHash  map[[sha256.Size]byte]Entry
}

// stamp tells one state of a file from another.
type stamp struct {
	ino, size, mtime, ctime int64
}

// LoadTokens reads the file.
func LoadTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{path: path, log: log, now: time.Now}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t, t.load()
}

func (t *Tokens) load() error {
	t.seen = stampOf(t.path)
	f, err := ReadFile(t.path)
	if err != nil {
		return err
	}
	t.byHash = make(map[[sha256.Size]byte]Entry, len(f.Tokens))
	for _, e := range f.Tokens {
		sum, _ := hex.DecodeString(e.SHA256)
		t.byHash[[sha256.Size]byte(sum)] = e
	}
	return nil
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	s := stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.ino, s.ctime = int64(st.Ino), st.Ctim.Nano()
	}
	return s
}

// Find is who has a token; an error when nobody, or no longer.
func (t *Tokens) Find(token string) (Principal, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if now.Sub(t.checked) >= checkEvery {
		t.checked = now
		if stampOf(t.path) != t.seen {
			if err := t.load(); err != nil {
				t.log.Error("the token file cannot be used: the tokens read before stay in force", "error", err)
			} else {
				t.log.Info("token file read", "file", t.path, "tokens", len(t.byHash))
			}
		}
	}
	e, ok := t.byHash[sha256.Sum256([]byte(token))]
	switch {
	case !ok && !bytes.HasPrefix([]byte(token), []byte(TokenPrefix)):
		return Principal{}, errors.New("this is no token of Viaduct's")
	case !ok:
		return Principal{}, errors.New("the token is unknown, or has been withdrawn")
	case e.Expires != nil && !now.Before(*e.Expires):
		return Principal{}, fmt.Errorf("the token %s has expired at %s", e.Name, e.Expires.UTC().Format(time.RFC3339))
	}
	return Principal{Name: e.Name, Role: e.Role, Tenant: e.Tenant}, nil
}
