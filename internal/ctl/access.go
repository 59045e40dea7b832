package ctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/api/access"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/ctl/output"
)

// DefaultTokens is the token file of a packaged server.
const DefaultTokens = "/etc/viaduct/tokens.yaml"

func newWhoami() *cobra.Command {
	var form *output.Form
	c := &cobra.Command{
		Use:     "whoami",
		Short:   "Show who you are to the server",
		Example: "  viaduct whoami\n  viaduct whoami -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, c, done, err := Dial(cmd)
			if err != nil {
				return err
			}
			defer done()
			p, err := c.Whoami(ctx)
			if err != nil {
				return err
			}
			if form.Machine() {
				return form.Print(cmd.OutOrStdout(), p)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintf(tw, "NAME\tROLE\tTENANT\tHOST\n%s\t%s\t%s\t%s\n", p.Name, p.Role, orDash(p.Tenant), orDash(p.Host))
			return tw.Flush()
		},
	}
	form = output.Flag(c, output.Table)
	return c
}

func newToken() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Make and withdraw the tokens that clients show to the API",
		Long: "Works on the token file of the server (viaduct server --tokens FILE), which reads it again when it changes. " +
			"The file has the hashes of the tokens only.",
		Example: "  viaduct token create nova --role operator\n" +
			"  viaduct token create alice --role tenant --tenant acme --expires 720h\n" +
			"  viaduct token list\n" +
			"  viaduct token delete alice",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().String("tokens", DefaultTokens, "the server's token file")
	c.AddCommand(tokenCreate(), tokenList(), tokenDelete())
	return c
}

// readTokens reads the file that --tokens names; one that does not exist is empty.
func readTokens(cmd *cobra.Command) (string, *access.File, error) {
	path, err := cmd.Flags().GetString("tokens")
	if err != nil {
		return "", nil, err
	}
	f, err := access.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, new(access.File), nil
	}
	return path, f, err
}

func tokenCreate() *cobra.Command {
	var p access.Principal
	var role string
	var valid time.Duration
	c := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make a token and print it, once",
		Example: "  viaduct token create alice --role tenant --tenant acme > alice.token",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, f, err := readTokens(cmd)
			if err != nil {
				return err
			}
			p.Name, p.Role = args[0], access.Role(role)
			if slices.ContainsFunc(f.Tokens, func(e access.Entry) bool { return e.Name == p.Name }) {
				return exit.With(exit.Conflict, fmt.Errorf("there is a token %q already: \"viaduct token delete %s\" withdraws it", p.Name, p.Name))
			}
			var expires *time.Time
			if valid > 0 {
				t := time.Now().Add(valid).UTC().Truncate(time.Second)
				expires = &t
			}
			token, e, err := access.NewToken(p, expires)
			if err != nil {
				return exit.With(exit.Usage, err)
			}
			f.Tokens = append(f.Tokens, e)
			if err := access.WriteFile(path, f); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "token %s added to %s; this is the only time it is shown:\n", p.Name, path)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	c.Flags().StringVar(&role, "role", "", "admin, operator, tenant or read-only")
	c.Flags().StringVar(&p.Tenant, "tenant", "", "whose objects it sees and, with role tenant, changes")
	c.Flags().DurationVar(&valid, "expires", 0, "after how long it ends; 0: never")
	if err := c.MarkFlagRequired("role"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

// shownToken is what is told of a token: all but its hash.
type shownToken struct {
	access.Principal
	Expires *time.Time `json:"expires,omitempty"`
}

func tokenList() *cobra.Command {
	var form *output.Form
	c := &cobra.Command{
		Use:     "list",
		Short:   "Show whose tokens there are",
		Example: "  viaduct token list --tokens ./tokens.yaml\n  viaduct token list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, f, err := readTokens(cmd)
			if err != nil {
				return err
			}
			if form.Machine() {
				shown := make([]shownToken, len(f.Tokens))
				for i, e := range f.Tokens {
					shown[i] = shownToken{access.Principal{Name: e.Name, Role: e.Role, Tenant: e.Tenant}, e.Expires}
				}
				return form.Print(cmd.OutOrStdout(), shown)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "NAME\tROLE\tTENANT\tEXPIRES")
			for _, e := range f.Tokens {
				expires := "never"
				if e.Expires != nil {
					expires = e.Expires.Format(time.RFC3339)
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", e.Name, e.Role, orDash(e.Tenant), expires)
			}
			return tw.Flush()
		},
	}
	form = output.Flag(c, output.Table)
	return c
}

func tokenDelete() *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME...",
		Short:   "Withdraw tokens",
		Long:    "A running server takes no notice of it for up to a second; watches that are open end within two more.",
		Example: "  viaduct token delete alice",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, f, err := readTokens(cmd)
			if err != nil {
				return err
			}
			for _, name := range args {
				n := len(f.Tokens)
				f.Tokens = slices.DeleteFunc(f.Tokens, func(e access.Entry) bool { return e.Name == name })
				if len(f.Tokens) == n {
					return exit.With(exit.NotFound, fmt.Errorf("no token %q in %s", name, path))
				}
			}
			if _, err := os.Stat(path); err != nil {
				return err
			}
			return access.WriteFile(path, f)
		},
	}
}
