package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/viaduct-net/viaduct/internal/conf"
	"github.com/viaduct-net/viaduct/internal/topo/store"
	"github.com/viaduct-net/viaduct/packaging/profiles"
)

// shippedProfiles are the changes that make the templates that are shipped.
func shippedProfiles() ([]conf.Change, error) {
	var changes []conf.Change
	err := fs.WalkDir(profiles.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := profiles.Files.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		docs, err := conf.ReadFile(f, name)
		for _, doc := range docs {
			changes = append(changes, conf.Change{Template: doc.Template, Set: doc.Values})
		}
		return err
	})
	return changes, err
}

const (
	initTimeout = 2 * time.Second // for the store to answer before the server goes on without
	initRetry   = time.Second
)

// initConf gives a store that has never been configured the templates that are shipped. When the store cannot be reached, it goes on
// trying behind the server's back until ctx ends; the channel is closed when it is done.
func (c *Config) initConf(ctx context.Context, k store.Keys) (<-chan struct{}, error) {
	done := make(chan struct{})
	changes, err := shippedProfiles()
	if err != nil {
		return nil, fmt.Errorf("shipped profiles: %w", err)
	}
	try := func() bool {
		ctx, cancel := context.WithTimeout(ctx, initTimeout)
		defer cancel()
		err := conf.Init(ctx, k, changes)
		switch {
		case err == nil:
			c.Log.Info("configuration begun with the shipped templates", "templates", len(changes))
		case errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.Canceled):
			return false
		case !errors.Is(err, conf.ErrInitialized):
			c.Log.Error("the shipped templates are not there", "error", err)
		}
		return true
	}
	if try() {
		close(done)
		return done, nil
	}
	go func() {
		defer close(done)
		t := time.NewTicker(initRetry)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if try() {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return done, nil
}
