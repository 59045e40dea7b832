package ctl

import (
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
	"github.com/viaduct-net/viaduct/internal/pki"
)

// DefaultPKI is where certificates are made.
const DefaultPKI = "/etc/viaduct/pki"

const day = 24 * time.Hour

func newCerts() *cobra.Command {
	c := &cobra.Command{
		Use:   "certs",
		Short: "Make the certificates of a small installation",
		Long: "Makes an authority, and certificates that it signs, as NAME.crt and NAME.key in one directory. Each server and host gets its own two files and ca.crt; " +
			"ca.key stays where it was made. What a certificate's role may do, it says itself: its organization is viaduct:ROLE, its common name is the host's or the user's.",
		Example: "  viaduct certs ca\n" +
			"  viaduct certs server net1 net1.example.org 192.0.2.10\n" +
			"  viaduct certs host h1 h2 h3\n" +
			"  viaduct certs client alice --role operator\n" +
			"  viaduct certs list\n" +
			"  viaduct certs renew",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().String("dir", DefaultPKI, "directory of the certificates")
	c.AddCommand(certsCA(), certsServer(), certsHost(), certsClient(), certsList(), certsRenew())
	return c
}

func pkiDir(cmd *cobra.Command) pki.Dir {
	d, _ := cmd.Flags().GetString("dir")
	return pki.Dir(d)
}

func daysFlag(c *cobra.Command, days int) *int {
	return c.Flags().Int("days", days, "how long it is valid")
}

func certsCA() *cobra.Command {
	c := &cobra.Command{
		Use:     "ca",
		Short:   "Make the authority",
		Example: "  viaduct certs ca --dir /etc/viaduct/pki",
		Args:    cobra.NoArgs,
	}
	days := daysFlag(c, 3650)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		x, err := pkiDir(cmd).CreateAuthority(time.Duration(*days) * day)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "ca created, valid until %s\n", x.NotAfter.Format(time.DateOnly))
		return err
	}
	return c
}

// issue makes one certificate and says so.
func issue(cmd *cobra.Command, name string, r pki.Request) error {
	x, err := pkiDir(cmd).Issue(name, r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s created, valid until %s\n", name, x.NotAfter.Format(time.DateOnly))
	return err
}

func certsServer() *cobra.Command {
	c := &cobra.Command{
		Use:   "server NAME [DNS-NAME|ADDRESS...]",
		Short: "Make a server's certificate",
		Long:  "For the API and for etcd alike, of which it may also be a client. The names and addresses are those by which others reach it; NAME, localhost and the loopback are always among them.",
		Example: "  viaduct certs server net1 net1.example.org 192.0.2.10\n" +
			"  viaduct server --listen 0.0.0.0:8181 --tls-cert net1.crt --tls-key net1.key --client-ca ca.crt",
		Args: cobra.MinimumNArgs(1),
	}
	days := daysFlag(c, 365)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		names := []string{"localhost", "127.0.0.1", "::1"}
		for _, n := range args {
			if strings.ContainsAny(n, "/ *") || n == "" {
				return exit.Usagef("%q is neither a DNS name nor an address", n)
			}
			if ip := net.ParseIP(n); ip == nil || !ip.IsLoopback() {
				names = append(names, n)
			}
		}
		return issue(cmd, args[0], pki.Request{
			Subject: pkix.Name{CommonName: args[0], Organization: []string{"viaduct server"}}, Names: names, Server: true, Valid: time.Duration(*days) * day,
		})
	}
	return c
}

func certsHost() *cobra.Command {
	c := &cobra.Command{
		Use:     "host HOST...",
		Short:   "Make certificates of hosts' agents",
		Long:    "Each names its host as the topology does (viaduct agent --host): through the API, whoever shows it may act as that host alone.",
		Example: "  viaduct certs host h1 h2",
		Args:    cobra.MinimumNArgs(1),
	}
	days := daysFlag(c, 365)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		for _, h := range args {
			r := pki.Request{Subject: subject(access.Principal{Name: h, Role: access.Agent}), Valid: time.Duration(*days) * day}
			if err := issue(cmd, h, r); err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

func certsClient() *cobra.Command {
	var p access.Principal
	var role string
	c := &cobra.Command{
		Use:     "client NAME",
		Short:   "Make a certificate of somebody who uses the API",
		Example: "  viaduct certs client alice --role tenant --tenant acme\n  viaduct get port --cert alice.crt --key alice.key --cacert ca.crt --server https://net1:8181",
		Args:    cobra.ExactArgs(1),
	}
	days := daysFlag(c, 365)
	c.Flags().StringVar(&role, "role", "", "admin, operator, tenant or read-only")
	c.Flags().StringVar(&p.Tenant, "tenant", "", "whose objects it sees and, with role tenant, changes")
	if err := c.MarkFlagRequired("role"); err != nil {
		panic(err) // the flag is defined above
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		p.Name, p.Role = args[0], access.Role(role)
		if p.Role == access.Agent {
			return exit.Usagef("an agent's certificate is its host's: viaduct certs host %s", p.Name)
		}
		if err := p.Validate(); err != nil {
			return exit.With(exit.Usage, err)
		}
		return issue(cmd, p.Name, pki.Request{Subject: subject(p), Valid: time.Duration(*days) * day})
	}
	return c
}

func subject(p access.Principal) pkix.Name {
	n := pkix.Name{CommonName: p.Name, Organization: []string{access.OrganizationPrefix + string(p.Role)}}
	if p.Tenant != "" {
		n.OrganizationalUnit = []string{p.Tenant}
	}
	return n
}

// shownCertificate is what is told of one.
type shownCertificate struct {
	Name    string    `json:"name"`
	Subject string    `json:"subject"`
	Names   []string  `json:"names"` // DNS names and addresses
	Expires time.Time `json:"expires"`
}

func certsList() *cobra.Command {
	var form *output.Form
	c := &cobra.Command{
		Use:     "list",
		Short:   "Show the certificates and how long they are valid",
		Example: "  viaduct certs list\n  viaduct certs list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := listCertificates(pkiDir(cmd))
			if err != nil {
				return err
			}
			if form.Machine() {
				return form.Print(cmd.OutOrStdout(), list)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "NAME\tSUBJECT\tNAMES\tEXPIRES\tDAYS LEFT")
			for _, x := range list {
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\n", x.Name, x.Subject, orDash(strings.Join(x.Names, ",")), x.Expires.Format(time.DateOnly), int(time.Until(x.Expires)/day))
			}
			return tw.Flush()
		},
	}
	form = output.Flag(c, output.Table)
	return c
}

func listCertificates(d pki.Dir) (list []shownCertificate, err error) {
	names, err := d.List()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, exit.With(exit.NotFound, fmt.Errorf("no certificates in %s: \"viaduct certs ca\" begins: %w", string(d), os.ErrNotExist))
	}
	for _, n := range names {
		x, err := d.Read(n)
		if err != nil {
			return nil, err
		}
		alt := slices.Concat([]string{}, x.DNSNames)
		for _, ip := range x.IPAddresses {
			alt = append(alt, ip.String())
		}
		list = append(list, shownCertificate{Name: n, Subject: x.Subject.String(), Names: alt, Expires: x.NotAfter})
	}
	return list, nil
}

func certsRenew() *cobra.Command {
	var before int
	var force bool
	c := &cobra.Command{
		Use:     "renew [NAME...]",
		Short:   "Make certificates anew that end soon",
		Long:    "Without names: all but the authority. Servers and agents that are running use what they find under the same names for new connections.",
		Example: "  viaduct certs renew --before 30\n  viaduct certs renew h1 --force",
		RunE: func(cmd *cobra.Command, args []string) error {
			d := pkiDir(cmd)
			names := args
			if len(names) == 0 {
				all, err := d.List()
				if err != nil {
					return err
				}
				for _, n := range all {
					if n != pki.Authority {
						names = append(names, n)
					}
				}
			}
			for _, n := range names {
				x, err := d.Read(n)
				if err != nil {
					return err
				}
				if left := time.Until(x.NotAfter); !force && left > time.Duration(before)*day {
					fmt.Fprintf(cmd.OutOrStdout(), "%s unchanged, valid for %d days\n", n, int(left/day))
					continue
				}
				if x, err = d.Renew(n); err != nil {
					return fmt.Errorf("%s: %w", n, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s renewed, valid until %s\n", n, x.NotAfter.Format(time.DateOnly))
			}
			return nil
		},
	}
	c.Flags().IntVar(&before, "before", 30, "renew what ends in so many days")
	c.Flags().BoolVar(&force, "force", false, "renew whatever its time")
	return c
}
