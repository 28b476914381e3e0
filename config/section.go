package config

import "reflect"

var configType = reflect.TypeFor[Config]()

// section is a table of the file with options of its own, or its top.
type section struct {
	header string // as it is written: [client], [upstream.NAME], [[route]]; "" for the top
	key    string // of the whole in the file
	typ    reflect.Type
	field  field // of the whole
}

// sections are the tables of the file, in the order of Config.
func sections() []section {
	var list []section
	for _, f := range fieldsOf(configType) {
		switch {
		case !isSection(f.typ):
		case f.typ.Kind() == reflect.Map:
			list = append(list, section{"[" + f.key + ".NAME]", f.key, f.typ.Elem(), f})
		case f.typ.Kind() == reflect.Slice:
			list = append(list, section{"[[" + f.key + "]]", f.key, f.typ.Elem(), f})
		default:
			list = append(list, section{"[" + f.key + "]", f.key, f.typ, f})
		}
	}
	return list
}

// isSection reports whether options of the type are tables of the file.
func isSection(t reflect.Type) bool {
	return isTable(elem(t))
}

// elem is the type of what a list, table of names or optional table holds, the
// type itself for others.
func elem(t reflect.Type) reflect.Type {
	switch t.Kind() {
	case reflect.Map, reflect.Slice, reflect.Pointer:
		return t.Elem()
	}
	return t
}
