package consultest

import (
	"cmp"

	"github.com/hashicorp/consul/api"
)

// Instance is a service instance to register. Only Service is needed.
type Instance struct {
	Service string
	// ID tells the instances of a service apart. Defaults to Service.
	ID string
	// NodeAddress is the address of the instance's node, "192.0.2.1" by default. Every instance is
	// on a node of its own.
	NodeAddress string
	// Address is the service's own address; empty is what Consul stores for "the node's".
	Address string
	Port    int
	Tags    []string
	Meta    map[string]string
	// TaggedAddresses are further addresses by name.
	TaggedAddresses map[string]api.ServiceAddress
	// Status of the instance's check: api.HealthPassing (the default), HealthWarning or HealthCritical.
	Status string
}

func (in Instance) id() string          { return cmp.Or(in.ID, in.Service) }
func (in Instance) node() string        { return "node-" + in.Service + "-" + in.id() }
func (in Instance) nodeAddress() string { return cmp.Or(in.NodeAddress, "192.0.2.1") }

func (in Instance) check() *api.AgentCheck {
	return &api.AgentCheck{
		Node: in.node(), CheckID: "check-" + in.id(), Name: "check", ServiceID: in.id(), ServiceName: in.Service,
		Status: cmp.Or(in.Status, api.HealthPassing),
	}
}

// Register adds the instance, or changes it. It goes to the catalog and not through the agent's own
// registry, so that every instance can have its own node and the next query sees it.
func (a *Agent) Register(in Instance) {
	a.tb.Helper()
	_, err := a.client.Catalog().Register(&api.CatalogRegistration{
		Node: in.node(), Address: in.nodeAddress(),
		Service: &api.AgentService{
			ID: in.id(), Service: in.Service, Address: in.Address, Port: in.Port,
			Tags: in.Tags, Meta: in.Meta, TaggedAddresses: in.TaggedAddresses,
		},
		Check: in.check(),
	}, nil)
	if err != nil {
		a.tb.Fatalf("consultest: register %s: %v", in.id(), err)
	}
}

// SetStatus changes the status of a registered instance's check and nothing else.
func (a *Agent) SetStatus(in Instance, status string) {
	a.tb.Helper()
	in.Status = status
	_, err := a.client.Catalog().Register(&api.CatalogRegistration{
		Node: in.node(), Address: in.nodeAddress(), SkipNodeUpdate: true, Check: in.check(),
	}, nil)
	if err != nil {
		a.tb.Fatalf("consultest: set status of %s: %v", in.id(), err)
	}
}

// Deregister removes the instance and its node.
func (a *Agent) Deregister(in Instance) {
	a.tb.Helper()
	if _, err := a.client.Catalog().Deregister(&api.CatalogDeregistration{Node: in.node()}, nil); err != nil {
		a.tb.Fatalf("consultest: deregister %s: %v", in.id(), err)
	}
}

// CreateToken returns a new ACL token that may do what rules, in Consul's policy language, allow.
// It needs an agent with WithACL.
func (a *Agent) CreateToken(name, rules string) string {
	a.tb.Helper()
	policy, _, err := a.client.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
	if err != nil {
		a.tb.Fatalf("consultest: create policy %s: %v", name, err)
	}
	token, _, err := a.client.ACL().TokenCreate(&api.ACLToken{
		Description: name, Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}},
	}, nil)
	if err != nil {
		a.tb.Fatalf("consultest: create token %s: %v", name, err)
	}
	return token.SecretID
}

// DeleteToken revokes a token that CreateToken made.
func (a *Agent) DeleteToken(secret string) {
	a.tb.Helper()
	token, _, err := a.client.ACL().TokenReadSelf(&api.QueryOptions{Token: secret})
	if err == nil {
		_, err = a.client.ACL().TokenDelete(token.AccessorID, nil)
	}
	if err != nil {
		a.tb.Fatalf("consultest: delete token: %v", err)
	}
}
