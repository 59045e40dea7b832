package access

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// OrganizationPrefix stands before the role in the organization (O) of a certificate's subject. The common name (CN) is the
// principal's name, an agent's host; the organizational unit (OU) its tenant.
const OrganizationPrefix = "viaduct:"

// FromCertificate is whom a verified certificate names.
func FromCertificate(c *x509.Certificate) (Principal, error) {
	p := Principal{Name: c.Subject.CommonName}
	for _, o := range c.Subject.Organization {
		role, ok := strings.CutPrefix(o, OrganizationPrefix)
		if !ok {
			continue
		}
		if p.Role != "" {
			return Principal{}, errors.New("the certificate has two roles")
		}
		p.Role = Role(role)
	}
	if p.Role == "" {
		return Principal{}, fmt.Errorf("the certificate of %q names no role: its organization does not begin with %q", p.Name, OrganizationPrefix)
	}
	if len(c.Subject.OrganizationalUnit) > 0 {
		p.Tenant = c.Subject.OrganizationalUnit[0]
	}
	if p.Role == Agent {
		p.Host = p.Name
	}
	if err := p.Validate(); err != nil {
		return Principal{}, fmt.Errorf("the certificate of %q: %w", p.Name, err)
	}
	return p, nil
}
