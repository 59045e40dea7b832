package ctl

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/viaduct-net/viaduct/internal/api/client"
	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/pki"
	"github.com/viaduct-net/viaduct/internal/topo/store/etcd"
)

// connection is how to reach the server, and who we are to it. Flags go before the environment, and that before the file.
type connection struct {
	Server    string `yaml:"server"`
	TokenFile string `yaml:"token_file"`
	CACert    string `yaml:"cacert"`
	Cert      string `yaml:"cert"`
	Key       string `yaml:"key"`
}

// Environment variables.
const (
	EnvServer = "VIADUCT_SERVER"
	EnvToken  = "VIADUCT_TOKEN"
	EnvConfig = "VIADUCT_CONFIG"
)

func env(flag string) string { return "VIADUCT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) }

func connectFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.String("server", "", "where the server is: https://HOST:PORT, http://HOST:PORT or unix:///PATH (default "+client.DefaultServer+"); also "+EnvServer)
	f.String("token", "", "token to show to the server; other users of this machine may see it here: better "+EnvToken+" or --token-file")
	f.String("token-file", "", "file with the token; also "+env("token-file"))
	f.String("cacert", "", "file with the authority that the server's certificate must be of; also "+env("cacert"))
	f.String("cert", "", "certificate to show to the server; also "+env("cert"))
	f.String("key", "", "its key; also "+env("key"))
	f.String("config", "", "file with server, token_file, cacert, cert and key; also "+EnvConfig+" (default ~/.config/viaduct/client.yaml, else /etc/viaduct/client.yaml)")
	for _, name := range []string{"token-file", "cacert", "cert", "key", "config"} {
		if err := root.MarkPersistentFlagFilename(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
}

// configFiles are where to look, in order.
func configFiles() []string {
	files := []string{"/etc/viaduct/client.yaml"}
	if home := os.Getenv("HOME"); home != "" {
		files = append([]string{filepath.Join(cmp.Or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), "viaduct", "client.yaml")}, files...)
	}
	return files
}

// Connect makes a client as the flags of cmd, the environment and the configuration file say. The caller closes it.
func Connect(cmd *cobra.Command) (*client.Client, error) {
	file, err := readConnection(cmd.Flags())
	if err != nil {
		return nil, err
	}
	value := func(flag, inFile string) string {
		v, _ := cmd.Flags().GetString(flag)
		return cmp.Or(v, os.Getenv(env(flag)), inFile)
	}
	cfg := client.Config{
		Server: cmp.Or(value("server", file.Server), client.DefaultServer),
		TLS:    pki.Files{CA: value("cacert", file.CACert), Cert: value("cert", file.Cert), Key: value("key", file.Key)},
	}
	if !strings.HasPrefix(cfg.Server, "https://") && !cmd.Flags().Changed("cacert") && !cmd.Flags().Changed("cert") {
		cfg.TLS = pki.Files{} // they are for the usual server, not for this socket
	}
	cfg.Token = value("token", "")
	if path := value("token-file", file.TokenFile); path != "" && cfg.Token == "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, exit.With(exit.Failure, fmt.Errorf("token file: %w", err))
		}
		cfg.Token = strings.TrimSpace(string(b))
	}
	c, err := client.Open(cfg)
	if err != nil {
		return nil, exit.With(exit.Usage, err)
	}
	return c, nil
}

// readConnection reads the file that was asked for, or the first of the usual ones that exists.
func readConnection(f *pflag.FlagSet) (c connection, err error) {
	asked, _ := f.GetString("config")
	asked = cmp.Or(asked, os.Getenv(EnvConfig))
	files := configFiles()
	if asked != "" {
		files = []string{asked}
	}
	for _, name := range files {
		r, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) && asked == "" {
			continue
		}
		if err != nil {
			return c, exit.With(exit.Failure, fmt.Errorf("--config: %w", err))
		}
		defer r.Close()
		if err := yaml.NewDecoder(r, yaml.Strict()).Decode(&c); err != nil {
			return c, exit.With(exit.Usage, fmt.Errorf("%s: %w", name, err))
		}
		return c, nil
	}
	return c, nil
}

// etcdFlags are for who talks to the store itself.
func etcdFlags(f *pflag.FlagSet, files *pki.Files, user *etcd.User) {
	f.StringVar(&files.CA, "etcd-cacert", "", "authority of the store's certificates, its clients' included")
	f.StringVar(&files.Cert, "etcd-cert", "", "certificate to show to the store, or of the embedded one")
	f.StringVar(&files.Key, "etcd-key", "", "its key")
	f.StringVar(&user.Name, "etcd-user", "", "user of an external etcd that asks for one")
	f.StringVar(&user.PasswordFile, "etcd-password-file", "", "file with the user's password, which others may not read")
}
