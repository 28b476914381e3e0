package cache

// Flying is the number of flights, of those who wait in them, and of those
// whose own client has left.
func (c *Cache) Flying() (flights, readers, orphans int) {
	for i := range c.flights.shards {
		d := &c.flights.shards[i]
		d.mu.Lock()
		for _, f := range d.flying {
			for ; f != nil; f = f.next {
				f.mu.Lock()
				flights++
				readers += len(f.readers)
				if f.orphan != nil {
					orphans++
				}
				f.mu.Unlock()
			}
		}
		d.mu.Unlock()
	}
	return flights, readers, orphans
}
