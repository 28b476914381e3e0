package users

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// maxMemoryUsers bounds the in-memory store.
const maxMemoryUsers = 1_000_000

// Memory is the Store without a database. What is stored is gone when the
// process ends.
type Memory struct {
	now func() time.Time

	mu      sync.RWMutex
	byID    map[int64]*record
	byEmail map[string]*record
	order   []*record            // by (created_at, id)
	roles   map[string][]*record // the same order
	lastID  int64
	changed time.Time
}

// record is a stored user. Its User is replaced as a whole, under the lock;
// creation time and id, and with them its place in the order, never change.
type record struct {
	User
	passwordHash string
}

// NewMemory returns a store that holds the first seed users of the
// deterministic sequence, 0 to 1,000,000: two stores with the same seed hold
// the same.
func NewMemory(seed int) *Memory {
	m := &Memory{
		now:     time.Now,
		byID:    make(map[int64]*record, seed),
		byEmail: make(map[string]*record, seed),
		order:   make([]*record, 0, seed),
		roles:   make(map[string][]*record),
		changed: seedEpoch,
	}
	for i := range seed {
		draft, created := seedUser(i)
		m.changed = created
		m.insert(&draft, created)
	}
	return m
}

// List allocates nothing once page has grown.
func (m *Memory) List(_ context.Context, q Query, page *Page) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	page.Changed = m.changed
	switch q.Kind {
	case ByPage:
		page.Total = int64(len(m.order))
		// Compared before it is multiplied: page numbers may be huge.
		if q.Page-1 <= len(m.order)/q.Size {
			from := (q.Page - 1) * q.Size
			page.append(m.order[from:min(from+q.Size, len(m.order))])
		}
	case ByCursor:
		from := place(m.order, q.After)
		page.append(m.order[from:min(from+q.Size+1, len(m.order))])
		page.trim(q.Size)
	case ByRole:
		all := m.roles[q.Role]
		page.append(all[max(0, len(all)-q.Size):])
		slices.Reverse(page.Users)
	}
	return nil
}

func (p *Page) append(records []*record) {
	for _, r := range records {
		p.Users = append(p.Users, r.User)
	}
}

// place is the index of the first record behind c.
func place(records []*record, c Cursor) int {
	from, to := 0, len(records)
	for from < to {
		mid := (from + to) / 2
		r := records[mid]
		if created := r.CreatedAt.UnixMicro(); created < c.Created || created == c.Created && r.ID <= c.ID {
			from = mid + 1
		} else {
			to = mid
		}
	}
	return from
}

func (m *Memory) User(_ context.Context, id int64) (User, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r := m.byID[id]
	if r == nil {
		return User{}, ErrNotFound
	}
	return r.User, nil
}

func (m *Memory) Create(_ context.Context, drafts []Draft) ([]User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.byID)+len(drafts) > maxMemoryUsers {
		return nil, errors.Join(ErrUnavailable, errors.New("store users: the in-memory store is full"))
	}
	seen := make(map[string]struct{}, len(drafts))
	for i := range drafts {
		email := drafts[i].Email
		_, twice := seen[email]
		if twice || m.byEmail[email] != nil {
			return nil, &ConflictError{Row: i + 1}
		}
		seen[email] = struct{}{}
	}
	now := m.touch()
	created := make([]User, len(drafts))
	for i := range drafts {
		created[i] = m.insert(&drafts[i], now)
	}
	return created, nil
}

// touch returns the time of a write. Times never go back, so that a new record
// belongs at the end.
func (m *Memory) touch() time.Time {
	if now := m.now().UTC().Truncate(time.Microsecond); now.After(m.changed) {
		m.changed = now
	}
	return m.changed
}

// insert needs the lock, a checked draft and a time that is not before the
// last one's.
func (m *Memory) insert(d *Draft, now time.Time) User {
	if d.PasswordHash == "" || d.Password != "" {
		panic("BUG: draft without hash, or with a password, in store")
	}
	m.lastID++
	r := &record{User{m.lastID, d.Name, d.Email, d.Role, now, now}, d.PasswordHash}
	m.byID[r.ID] = r
	m.byEmail[r.Email] = r
	m.order = append(m.order, r)
	m.roles[r.Role] = append(m.roles[r.Role], r)
	return r.User
}

func (m *Memory) Update(_ context.Context, id int64, d Draft) (User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.byID[id]
	if r == nil {
		return User{}, ErrNotFound
	}
	if other := m.byEmail[d.Email]; other != nil && other != r {
		return User{}, &ConflictError{Row: 1}
	}
	delete(m.byEmail, r.Email)
	m.byEmail[d.Email] = r
	if r.Role != d.Role {
		m.removeRole(r)
		to := m.roles[d.Role]
		m.roles[d.Role] = slices.Insert(to, place(to, r.cursor()), r)
	}
	r.Name, r.Email, r.Role, r.UpdatedAt = d.Name, d.Email, d.Role, m.touch()
	if d.PasswordHash != "" {
		r.passwordHash = d.PasswordHash
	}
	return r.User, nil
}

func (m *Memory) Delete(_ context.Context, id int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.byID[id]
	if r == nil {
		return ErrNotFound
	}
	m.touch()
	delete(m.byID, id)
	delete(m.byEmail, r.Email)
	m.order = remove(m.order, r)
	m.removeRole(r)
	return nil
}

func (m *Memory) removeRole(r *record) {
	if rest := remove(m.roles[r.Role], r); len(rest) > 0 {
		m.roles[r.Role] = rest
	} else {
		delete(m.roles, r.Role)
	}
}

func (r *record) cursor() Cursor {
	return Cursor{r.CreatedAt.UnixMicro(), r.ID}
}

func remove(records []*record, r *record) []*record {
	i := place(records, r.cursor()) - 1
	if i < 0 || records[i] != r {
		panic("BUG: record is not in its place")
	}
	return slices.Delete(records, i, i+1)
}

// Ping always succeeds.
func (m *Memory) Ping(context.Context) error { return nil }

// Close does nothing.
func (m *Memory) Close() {}
