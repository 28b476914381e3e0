package users

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Store keeps users. Its methods may be called from many goroutines. They
// return ErrNotFound, a *ConflictError, an error that wraps ErrUnavailable
// (the store cannot answer now), or an error that nobody expected.
type Store interface {
	// List fills page, which the caller has reset, with the users that q asks
	// for. The strings in it stay valid forever.
	List(ctx context.Context, q Query, page *Page) error

	// User returns one user, or ErrNotFound.
	User(ctx context.Context, id int64) (User, error)

	// Create stores all drafts, which have been checked and hashed, or none.
	// The users come in the order of the drafts.
	Create(ctx context.Context, drafts []Draft) ([]User, error)

	// Update replaces a user's draft, or returns ErrNotFound.
	Update(ctx context.Context, id int64, d Draft) (User, error)

	// Delete removes a user, or returns ErrNotFound.
	Delete(ctx context.Context, id int64) error

	// Ping says whether the store can answer.
	Ping(ctx context.Context) error

	// Close releases what the store holds. Nothing is called after it.
	Close()
}

var (
	// ErrNotFound means that there is no user with that id.
	ErrNotFound = errors.New("no such user")

	// ErrUnavailable means that the store, or a worker, cannot answer now. The
	// request may be tried again later; a write may or may not have happened.
	ErrUnavailable = errors.New("unavailable")
)

// ConflictError means that an e-mail address belongs to somebody else already.
type ConflictError struct {
	Row int // of the drafts, from 1; 0 when it is not known
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("row %d: e-mail address is taken", e.Row)
}

// Kind is the way in which a list is asked for.
type Kind uint8

const (
	ByPage   Kind = iota // Page and Size; oldest first, with the total
	ByCursor             // After and Size; oldest first
	ByRole               // Role and Size; newest first
)

// Query asks for a list of users.
type Query struct {
	Kind  Kind
	Page  int // from 1
	Size  int // 1 to 100
	After Cursor
	Role  string
}

// Cursor is a place in the order of lists: behind the user with this creation
// time (microseconds since 1970) and id. The zero value is the beginning.
type Cursor struct {
	Created int64
	ID      int64
}

// Page is a part of a list. It is reused from request to request.
type Page struct {
	Users []User
	Total int64 // of all users; ByPage only
	More  bool  // ByCursor only: users follow

	// Changed is when any user changed last; the zero value means that it is
	// not known (ByCursor and ByRole, when nothing was found).
	Changed time.Time
}

// Reset empties p and forgets the strings that it refers to.
func (p *Page) Reset() {
	clear(p.Users[:cap(p.Users)])
	*p = Page{Users: p.Users[:0]}
}

// next is the cursor behind the last user of p.
func (p *Page) next() Cursor {
	last := &p.Users[len(p.Users)-1]
	return Cursor{last.CreatedAt.UnixMicro(), last.ID}
}

// trim drops the user that was fetched beyond size only to learn whether users
// follow.
func (p *Page) trim(size int) {
	if len(p.Users) > size {
		p.Users, p.More = p.Users[:size], true
	}
}
