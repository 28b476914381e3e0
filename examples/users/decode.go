package users

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"
)

const (
	maxBatch     = 10_000
	maxPasswords = 100 // in a batch: each costs tens of milliseconds of CPU
)

// inputError says what is wrong with a body, in words for its sender.
type inputError struct {
	Row    int    // from 1; 0 when no row is to blame
	Field  string // may be empty
	Detail string
}

func (e *inputError) Error() string {
	return "row " + strconv.Itoa(e.Row) + ": " + e.Field + ": " + e.Detail
}

// decodeDraft reads a body that is one JSON object.
func decodeDraft(body []byte, update bool) (Draft, error) {
	drafts, err := decodeDrafts(body, '{', 1, update)
	if err != nil {
		err.Row = 0
		return Draft{}, err
	}
	return drafts[0], nil
}

// decodeBatch reads a body that is a JSON array of objects, or JSON objects
// one after the other.
func decodeBatch(body []byte) ([]Draft, error) {
	first := byte('{')
	if text := bytes.TrimLeft(body, " \t\r\n"); len(text) > 0 && text[0] == '[' {
		first = '['
	}
	drafts, err := decodeDrafts(body, first, maxBatch, false)
	if err != nil {
		return nil, err
	}
	passwords := 0
	for i := range drafts {
		if drafts[i].Password == "" {
			continue
		}
		if passwords++; passwords > maxPasswords {
			return nil, &inputError{i + 1, "password", "at most 100 rows may bring a password; send password_hash"}
		}
	}
	return drafts, nil
}

// decodeDrafts reads and checks 1 to most rows: the elements of an array when
// first is '[', the objects of a sequence when it is '{'. encoding/json would
// take unknown, repeated and differently spelled fields; this does not.
func decodeDrafts(body []byte, first byte, most int, update bool) ([]Draft, *inputError) {
	if !utf8.Valid(body) {
		return nil, &inputError{Detail: "the body is not UTF-8"}
	}
	d := json.NewDecoder(bytes.NewReader(body))
	array := first == '['
	if array {
		_, _ = d.Token() // the caller has seen it
	}
	var drafts []Draft
	for {
		if array && !d.More() {
			break
		}
		t, err := d.Token()
		if errors.Is(err, io.EOF) && !array {
			break
		}
		row := len(drafts) + 1
		if err != nil || t != json.Delim('{') {
			return nil, &inputError{row, "", "want a JSON object"}
		}
		if row > most {
			if most == 1 {
				return nil, &inputError{row, "", "want one JSON object and nothing behind it"}
			}
			return nil, &inputError{row, "", "a batch has at most " + strconv.Itoa(most) + " rows"}
		}
		draft, bad := decodeFields(d)
		if bad == nil {
			if p := draft.check(update); p.field != "" {
				bad = &inputError{Field: p.field, Detail: p.detail}
			}
		}
		if bad != nil {
			bad.Row = row
			return nil, bad
		}
		drafts = append(drafts, draft)
	}
	if array {
		if t, err := d.Token(); err != nil || t != json.Delim(']') {
			return nil, &inputError{len(drafts) + 1, "", "want a JSON object or the end of the array"}
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return nil, &inputError{Detail: "something follows the array"}
		}
	}
	if len(drafts) == 0 {
		return nil, &inputError{Detail: "the body holds no user; want a JSON object for each"}
	}
	return drafts, nil
}

// decodeFields reads the rest of an object whose { has been read.
func decodeFields(d *json.Decoder) (Draft, *inputError) {
	var draft Draft
	seen := 0 // a bit for each field
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return draft, &inputError{Detail: "want a JSON object"}
		}
		var field *string
		bit := 0
		switch name {
		case "name":
			field, bit = &draft.Name, 1
		case "email":
			field, bit = &draft.Email, 2
		case "role":
			field, bit = &draft.Role, 4
		case "password":
			field, bit = &draft.Password, 8
		case "password_hash":
			field, bit = &draft.PasswordHash, 16
		default:
			if len(name) > 64 {
				name = name[:64]
			}
			return draft, &inputError{Field: name, Detail: "unknown field; want name, email, role, password or password_hash"}
		}
		if seen&bit != 0 {
			return draft, &inputError{Field: name, Detail: "is given twice"}
		}
		seen |= bit
		if t, err = d.Token(); err != nil {
			return draft, &inputError{Field: name, Detail: "want a JSON string"}
		}
		if *field, ok = t.(string); !ok {
			return draft, &inputError{Field: name, Detail: "want a JSON string"}
		}
	}
	if _, err := d.Token(); err != nil {
		return draft, &inputError{Detail: "want a JSON object"}
	}
	return draft, nil
}
