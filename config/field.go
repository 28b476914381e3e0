package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gateway/internal/unit"
	"gateway/listener"
)

// field is an option as its struct declares it.
type field struct {
	key      string // in the file
	name     string // in the source: upstream.Options.Balance
	index    []int  // of the struct that the file's table stands for
	typ      reflect.Type
	fallback string   // what a missing key gets; "" for the zero value
	enum     []string // allowed values; nil for any
	min, max string   // bounds, "" for none
	secret   bool     // never shown
}

// fieldsOf are the options of a struct, those of embedded structs in place.
func fieldsOf(t reflect.Type) []field {
	var list []field
	for i := range t.NumField() {
		f := t.Field(i)
		key, tagged := f.Tag.Lookup("toml")
		if f.Anonymous && !tagged {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				list = append(list, inner)
			}
			continue
		}
		if key == "" || key == "-" {
			continue
		}
		option := field{
			key: key, name: typeName(t) + "." + f.Name, index: []int{i}, typ: f.Type,
			fallback: f.Tag.Get("default"), min: f.Tag.Get("min"), max: f.Tag.Get("max"),
			secret: f.Tag.Get("secret") == "true",
		}
		if e := f.Tag.Get("enum"); e != "" {
			option.enum = strings.Split(e, ",")
		}
		list = append(list, option)
	}
	return list
}

// typeName is the name of a type with that of its package's folder.
func typeName(t reflect.Type) string {
	path := t.PkgPath()
	return path[strings.LastIndexByte(path, '/')+1:] + "." + t.Name()
}

var (
	durationType  = reflect.TypeFor[time.Duration]()
	addressType   = reflect.TypeFor[listener.Address]()
	sizeType      = reflect.TypeFor[unit.Size]()
	textType      = reflect.TypeFor[encoding.TextUnmarshaler]()
	unmarshalType = reflect.TypeFor[unmarshaler]()
	choiceType    = reflect.TypeFor[chooser]()
)

// unmarshaler is an option of several forms, such as a string or a table: it
// is given what the TOML package decodes into any.
type unmarshaler interface{ UnmarshalTOML(v any) error }

// checker is a struct that knows which of its options do not go together.
type checker interface {
	Check(report func(key, problem string))
}

// isText reports whether values of the type are written as strings.
func isText(t reflect.Type) bool {
	return t == durationType || t == addressType || t.Kind() == reflect.String || reflect.PointerTo(t).Implements(textType)
}

func isUnmarshaler(t reflect.Type) bool { return reflect.PointerTo(t).Implements(unmarshalType) }

func isChoice(t reflect.Type) bool { return reflect.PointerTo(t).Implements(choiceType) }

// isTable reports whether the type is a struct that stands for a table.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !isText(t) && !isChoice(t) && len(fieldsOf(t)) > 0
}

// fill gives every option of a struct its default.
func fill(v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		target := v.FieldByIndex(f.index)
		if f.fallback != "" {
			if err := setText(target, f.fallback); err != nil {
				panic(fmt.Sprintf("BUG: default of %s: %v", f.name, err))
			}
		} else if isTable(f.typ) && !isUnmarshaler(f.typ) {
			fill(target)
		}
	}
}

// setText sets a value to its text: that of a tag or of a variable. Elements
// of lists are separated by commas.
func setText(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		d, err := unit.ParseDuration(text)
		*p = d
		return err
	case *listener.Address:
		a, err := listener.ParseAddress(text)
		*p = a
		return err
	case unmarshaler:
		return p.UnmarshalTOML(text)
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("unexpected %q; want true or false", text)
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v.OverflowInt(n) {
			return fmt.Errorf("unexpected %q; want a whole number", text)
		}
		v.SetInt(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || n-n != 0 { // infinite or not a number
			return fmt.Errorf("unexpected %q; want a number", text)
		}
		v.SetFloat(n)
	case reflect.Slice:
		v.SetZero() // a default may be filled in already
		for part := range strings.SplitSeq(text, ",") {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := setText(e, part); err != nil {
				return err
			}
			v.Set(reflect.Append(v, e))
		}
	default:
		panic("BUG: no text for options of type " + v.Type().String())
	}
	return nil
}
