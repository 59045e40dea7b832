package ctl

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/viaduct-net/viaduct/internal/ctl/exit"
	"github.com/viaduct-net/viaduct/internal/server"
)

func newServer() *cobra.Command {
	var c server.Config
	var level string
	cmd := &cobra.Command{
		Use: "server",
		Example: "  viaduct server\n" +
			"  viaduct server --listen unix:///run/viaduct/api.sock --listen 0.0.0.0:8181 --tls-cert net1.crt --tls-key net1.key --client-ca ca.crt --tokens tokens.yaml",
		Short: "Run a control-plane node: the store and the API",
		Long: "Runs until SIGTERM or SIGINT. With no --etcd-endpoints it embeds an etcd of its own. " +
			"When it serves it logs \"ready\" and, under systemd, says so.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return exit.Usagef("--log-level %q: want debug, info, warn or error", level)
			}
			c.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l}))
			c.Version = Version()
			return server.Run(cmd.Context(), c)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&c.Listen, "listen", []string{server.DefaultListen}, "where the API listens, may be repeated: unix:///PATH or HOST:PORT (port 0: a free one); beyond the loopback only with TLS and --tokens or --client-ca")
	f.StringVar(&c.TLS.Cert, "tls-cert", "", "certificate of the API, with which HOST:PORT is https")
	f.StringVar(&c.TLS.Key, "tls-key", "", "its key")
	f.StringVar(&c.TLS.CA, "client-ca", "", "authority whose certificates clients may show")
	f.StringVar(&c.Tokens, "tokens", "", "file of tokens (viaduct token): clients at HOST:PORT must have one, or a certificate")
	etcdFlags(f, &c.EtcdTLS, &c.EtcdUser)
	f.StringVar(&c.DataDir, "data-dir", server.DefaultDataDir, "data directory of the embedded etcd")
	f.StringVar(&c.EtcdListen, "etcd-listen", server.DefaultEtcdListen, "where the embedded etcd serves agents (port 0: a free one, which \"ready\" names)")
	f.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", nil, "endpoints of an external etcd, in place of the embedded one")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	localSettings(cmd)
	cmd.MarkFlagsMutuallyExclusive("etcd-endpoints", "data-dir")
	cmd.MarkFlagsMutuallyExclusive("etcd-endpoints", "etcd-listen")
	return cmd
}
