package access

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// Authenticator finds out who makes a request. The zero value knows nobody but whom the connection itself vouches for.
type Authenticator struct {
	Tokens *Tokens // nil: none
}

type trustedKey struct{}

// Trust marks the context of connections that only an administrator of this machine can have made.
func Trust(ctx context.Context) context.Context { return context.WithValue(ctx, trustedKey{}, true) }

// ErrNobody is that a request does not say who makes it.
var ErrNobody = errors.New("no token and no client certificate")

// Who tells who makes the request: by its token, else by its connection's certificate, else by the connection.
func (a *Authenticator) Who(r *http.Request) (Principal, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		token, ok := strings.CutPrefix(h, "Bearer ")
		switch {
		case !ok:
			return Principal{}, errors.New("the Authorization header is not \"Bearer TOKEN\"")
		case a.Tokens == nil:
			return Principal{}, errors.New("this server has no token file")
		}
		return a.Tokens.Find(token)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c := r.TLS.VerifiedChains[0][0]
		if time.Now().After(c.NotAfter) { // a connection may outlive it
			return Principal{}, errors.New("the client's certificate has expired")
		}
		return FromCertificate(c)
	}
	if trusted, _ := r.Context().Value(trustedKey{}).(bool); trusted {
		return Principal{Name: "local", Role: Admin}, nil
	}
	return Principal{}, ErrNobody
}
