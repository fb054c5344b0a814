package consul

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// What an instance's registration may say about NATS, besides its address and port.
const (
	metaPort      = "nats_port"
	metaScheme    = "scheme"
	taggedAddress = "nats"
)

// instanceURLs returns the URLs of the entries in their order, each once, and what was skipped of those that pass their
// checks, "" for nothing: the first few, and why.
func instanceURLs(entries []*api.ServiceEntry, grpcPort int) (urls []string, skipped string) {
	var reasons []string
	seen := make(map[string]bool, len(entries))
	for _, entry := range entries {
		if entry == nil || entry.Service == nil || entry.Node == nil {
			reasons = append(reasons, `"": incomplete entry`)
			continue
		}
		url, err := instanceURL(entry.Service, entry.Node, grpcPort)
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%q: %v", entry.Service.ID+" on "+entry.Node.Node, err))
			continue
		}
		if !seen[url] {
			urls = append(urls, url)
		}
		seen[url] = true
	}
	if len(reasons) == 0 {
		return urls, ""
	}
	slices.Sort(reasons) // Consul promises no order, and what is told must not change with it
	return urls, fmt.Sprintf("%d skipped (%s)", len(reasons), fault.Few(reasons, "; ", 5))
}

// instanceURL builds the NATS URL of one instance; Resolver's doc has the rules.
func instanceURL(service *api.AgentService, node *api.Node, grpcPort int) (string, error) {
	scheme, err := instanceScheme(service)
	if err != nil {
		return "", err
	}
	tagged := service.TaggedAddresses[taggedAddress]
	host, err := instanceHost(cmp.Or(tagged.Address, service.Address, node.Address))
	if err != nil {
		return "", err
	}
	port, err := instancePort(service, tagged.Port, grpcPort)
	if err != nil {
		return "", err
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func instanceScheme(service *api.AgentService) (string, error) {
	given := service.Meta[metaScheme]
	switch scheme := strings.ToLower(given); scheme {
	case "":
		return "nats", nil
	case "nats", "tls", "ws", "wss":
		return scheme, nil
	}
	return "", fmt.Errorf("meta %s %q is not nats, tls, ws or wss", metaScheme, excerpt(given, ""))
}

func instancePort(service *api.AgentService, taggedPort, grpcPort int) (int, error) {
	port, origin := taggedPort, "tagged address "+taggedAddress
	if port == 0 {
		if text, ok := service.Meta[metaPort]; ok {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil || n == 0 {
				return 0, fmt.Errorf("meta %s %q is not a port", metaPort, excerpt(text, ""))
			}
			return int(n), nil
		}
		port, origin = service.Port, "service"
		if grpcPort != 0 && port == grpcPort {
			return 0, fmt.Errorf("port %d is the gRPC gateway's and no NATS port is named (meta %s or tagged address %q)",
				port, metaPort, taggedAddress)
		}
	}
	if port < 1 || port > 65535 {
		return 0, fmt.Errorf("%s port %d is not a port", origin, port)
	}
	return port, nil
}

// instanceHost returns host without brackets, or why a URL cannot be built with it.
func instanceHost(host string) (string, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	if host == "" {
		return "", errors.New("neither service nor node has an address")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		switch {
		case addr.IsUnspecified():
			return "", fmt.Errorf("address %s is not one to connect to", host)
		case addr.Zone() != "":
			// A zone names an interface of the machine that registered it, not of this one.
			return "", fmt.Errorf("address %s has a zone", excerpt(host, ""))
		}
		return host, nil
	}
	for _, c := range []byte(host) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return "", fmt.Errorf("address %q is neither a host name nor an IP address", excerpt(host, ""))
		}
	}
	return host, nil
}
