package middleware

import "gateway/exchange"

// Access lets clients in by their address.
type Access struct {
	allow, deny addresses
	listed      bool // there is an allow list
}

// NewAccess builds the stage, nil when the options ask for nothing.
func NewAccess(o AccessOptions) *Access {
	if len(o.Allow) == 0 && len(o.Deny) == 0 {
		return nil
	}
	return &Access{allow: newAddresses(o.Allow), deny: newAddresses(o.Deny), listed: len(o.Allow) > 0}
}

// Before reports whether the client may go on; if not, x.Reason is Denied and
// the caller answers. Identity must have run. A client without an address (a
// Unix socket's peer that forwards none) is on no list.
func (a *Access) Before(x *exchange.Exchange) bool {
	if a == nil {
		return true
	}
	if a.deny.contains(x.Addr) || a.listed && !a.allow.contains(x.Addr) {
		x.Reason = exchange.Denied
		return false
	}
	return true
}
