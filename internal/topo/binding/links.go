package binding

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// retryEvery is how soon a Bind that failed, or a subscription that broke, is tried again.
const retryEvery = time.Second

// receiveBuffer holds the kernel's news of some ten thousand links while effects run.
const receiveBuffer = 16 << 20 // bytes

// WatchLinks tells m about the interfaces of a network namespace (nil: that of the process) until ctx ends,
// whose error it returns, and retries what failed. When the kernel drops news, all links are listed again.
func WatchLinks(ctx context.Context, m *Manager, ns *netns.NsHandle, log *slog.Logger) error {
	for {
		err := watchOnce(ctx, m, ns)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("news of the interfaces broke off", "error", err, "retry_in", retryEvery)
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func watchOnce(ctx context.Context, m *Manager, ns *netns.NsHandle) error {
	done := make(chan struct{})
	news := make(chan netlink.LinkUpdate, 64)
	failure := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(news, done, netlink.LinkSubscribeOptions{
		Namespace:         ns,
		ReceiveBufferSize: receiveBuffer, ReceiveBufferForceSize: true,
		ErrorCallback: func(err error) {
			select {
			case failure <- err:
			default:
			}
		},
	})
	if err != nil {
		close(done)
		return fmt.Errorf("subscribe to links: %w", err)
	}
	defer func() {
		close(done)
		for range news { // let the reader end
		}
	}()
	// News are subscribed to first, so none is missed; what the list has already comes again and changes nothing.
	links, err := listLinks(ns)
	if err != nil {
		return err
	}
	m.SetLinks(links)
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case u, ok := <-news:
			if !ok {
				return errors.New("the subscription ended")
			}
			if u.Header.Type == unix.RTM_DELLINK {
				m.LinkGone(u.Attrs().Index)
			} else {
				m.LinkChanged(linkOf(u.Link))
			}
		case err := <-failure:
			return err
		case <-tick.C:
			m.Retry()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func listLinks(ns *netns.NsHandle) ([]Link, error) {
	at := netns.None()
	if ns != nil {
		at = *ns
	}
	h, err := netlink.NewHandleAt(at, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	defer h.Close()
	all, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]Link, len(all))
	for i, l := range all {
		links[i] = linkOf(l)
	}
	return links, nil
}

func linkOf(l netlink.Link) Link {
	a := l.Attrs()
	up := a.Flags&net.FlagUp != 0 && a.OperState != netlink.OperDown && a.OperState != netlink.OperLowerLayerDown
	return Link{Name: a.Name, Index: a.Index, Up: up}
}
