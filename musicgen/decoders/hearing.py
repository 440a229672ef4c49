"""Hearing: pitch as it sounds, by its distance from what was heard before, and so the same in every key.

A model with hearing has an *ear* beside its decoder. It remembers the last pitch of each line (a voice, a part), for
how many steps that has been the last one, and which classes of pitch sounded in the recent past (histograms that fade
at several speeds). From it the embedding adds to a step its intervals: to the line's pitch before, to the other voices,
and the histograms seen from the pitch itself. And the head scores a pitch by its interval from the last one of its
line, given the other voices and the histograms as seen from there, beside the score that every value has by itself.

Transposing the music changes none of these inputs. What the ear remembers is one more tensor of the state: zeros mean
that nothing was heard. It has no weights. It works on what a tokenizer's `Hearing` says of its values, for any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from musicgen.tokens import Hearing

REACH = 24
"""Intervals are told apart up to this many places of the scale, up and down; further ones count as the furthest."""
FADES = (0.0, 0.6, 0.9, 0.975)
"""What is left of a histogram after each step. The first hears the present alone."""
OLDEST = 48
"""The greatest age that is told apart."""
BLOCK = 256
"""Steps that the ear takes in at once: its work grows with their square."""


class Ear(nn.Module):
    """What was heard: lasts (L), ages (L) and histograms (len(FADES) · octave) after each step, in one row (E,).

    A last is 1 + the place of the line's last pitch, 0 before its first. An age is 1 + the steps since it began, 0
    before the first, and below zero while the line is silent: minus 1 and minus the steps since the rest began. With a
    `lane_field` there is one line more, which has every pitch, whatever its part.
    """

    def __init__(self, hearing: Hearing, fields: Sequence[int]) -> None:
        super().__init__()
        self.octave, self.struck, self.sustained = hearing.octave, hearing.struck, hearing.sustained
        self.pitched = tuple(sorted(hearing.places))
        self.lane_field = hearing.lane_field
        self.register_buffer("rests", torch.tensor(hearing.rests, dtype=torch.long), persistent=False)
        for field in self.pitched:
            kinds = hearing.kinds.get(field)
            place = torch.as_tensor(hearing.places[field], dtype=torch.long)
            kind = torch.zeros_like(place) if kinds is None else torch.as_tensor(kinds, dtype=torch.long)
            if len(place) != fields[field]:
                raise ValueError(f"field {field} has {fields[field]} values, and places for {len(place)}")
            self.register_buffer(f"place_{field}", place, persistent=False)
            self.register_buffer(f"kind_{field}", kind, persistent=False)
        self.kinds = 1 + max(int(self.table("kind", field).max()) for field in self.pitched)
        if hearing.lane_field is None:
            self.lines = len(self.pitched)
        else:
            lanes = torch.as_tensor(hearing.lanes, dtype=torch.long)
            self.register_buffer("lanes", lanes, persistent=False)
            self.lines = int(lanes.max()) + 2
        self.register_buffer("fades", torch.tensor(FADES), persistent=False)
        self.histograms = len(FADES) * self.octave
        self.width = 2 * self.lines + self.histograms

    def table(self, name: str, field: int) -> Tensor:
        return self.get_buffer(f"{name}_{field}")

    def place(self, field: int, values: Tensor) -> Tensor:
        """1 + the place of each value that is heard, 0 for others; any shape, int64."""
        place = self.table("place", field)[values]
        return torch.where(self.table("kind", field)[values] < self.struck, place + 1, 0)

    def split(self, heard: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., E) -> lasts (..., L) int64, ages (..., L) int64, histograms (..., len(FADES), octave).

        Ages are counted on here from OLDEST for silence: 0 .. 2 · OLDEST.
        """
        lasts, ages, histograms = heard.split([self.lines, self.lines, self.histograms], -1)
        ages = torch.where(ages < 0, OLDEST - ages, ages)
        return lasts.long(), ages.long(), histograms.unflatten(-1, (len(FADES), self.octave))

    @torch.no_grad()
    def forward(self, steps: Tensor, state: Tensor, fresh: Tensor | None = None) -> Tensor:
        """steps: (B, T, F) int64; state: (B, E); fresh: (B, T) bool. Returns what was heard after each, (B, T, E)."""
        found = []
        for at in range(0, steps.shape[1], BLOCK):
            heard = self._listen(steps[:, at : at + BLOCK], state, None if fresh is None else fresh[:, at : at + BLOCK])
            state = heard[:, -1]
            found.append(heard)
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _listen(self, steps: Tensor, state: Tensor, fresh: Tensor | None) -> Tensor:
        batch, length = steps.shape[:2]
        places = torch.stack([self.place(field, steps[..., field]) for field in self.pitched], -1)  # (B, T, P)
        before, aged, faded = state.split([self.lines, self.lines, self.histograms], -1)
        if self.lane_field is None:
            now = places
        else:
            lane = self.get_buffer("lanes")[steps[..., self.lane_field]]  # (B, T)
            now = places.new_zeros(batch, length, self.lines).scatter(-1, lane[..., None], places)
            now[..., -1] = places[..., 0]
        count = torch.arange(length, device=steps.device)[None, :, None]  # (1, T, 1)
        fresh = steps.new_zeros(batch, length, dtype=torch.bool) if fresh is None else fresh
        begun = torch.where(fresh[..., None], count, -1).cummax(1).values  # (B, T, 1): where this piece began, or -1
        latest = torch.where((now > 0) | fresh[..., None], count, -1).cummax(1).values  # (B, T, L)
        lasts = torch.where(latest < 0, before[:, None], now.gather(1, latest.clamp(min=0)).to(before.dtype))
        if self.lane_field is None:
            rest = torch.stack([torch.isin(steps[..., field], self.get_buffer("rests")) for field in self.pitched], -1)
        else:
            rest = torch.zeros_like(now, dtype=torch.bool)
        told = (now > 0).long() - rest.long()  # 1: sounds from here on, -1: is silent
        known = torch.where((told != 0) | fresh[..., None], count, -1).cummax(1).values
        sign = torch.where(known < 0, aged[:, None].sign().long(), told.gather(1, known.clamp(min=0)))
        was = torch.cat([aged[:, None].sign().long(), sign[:, :-1]], 1).masked_fill(fresh[..., None], 0)
        onset = now > 0
        if self.sustained:
            shifted = torch.cat([before[:, None], lasts[:, :-1]], 1)
            onset = onset & ((lasts != shifted) | (was <= 0))
        begun_here = onset | (rest & (was >= 0)) | fresh[..., None]
        struck = torch.where(begun_here, count, -1).cummax(1).values
        ages = torch.where(struck < 0, aged[:, None].abs() + count + 1, count - struck + 1).clamp(max=OLDEST) * sign

        sounds = functional.one_hot((places - 1).clamp(min=0) % self.octave, self.octave) * (places > 0)[..., None]
        sounds = sounds.sum(2).to(state.dtype)  # (B, T, octave)
        distance = (count[0] - count[0, :, 0]).clamp(min=0)  # (T, T): how long ago
        fades = self.get_buffer("fades").to(state.dtype)[:, None, None]
        weights = (fades**distance * (1 - fades)).tril()  # (S, T, T)
        same = begun == begun.mT  # (B, T, T): in one piece
        histograms = (weights * same[:, None]) @ sounds[:, None]  # (B, S, T, octave)
        left = (fades ** (count + 1))[None] * (begun < 0)[:, None]  # (B, S, T, 1) of what was heard before
        histograms = histograms + left * faded.unflatten(-1, (len(FADES), 1, self.octave))
        return torch.cat([lasts, ages.to(lasts.dtype), histograms.transpose(1, 2).flatten(2)], -1)


def interval(here: Tensor, there: Tensor) -> Tensor:
    """How far `here` lies above `there`, as an index: 0 where one of them is nothing, else 1 .. 2 · REACH + 1."""
    return torch.where((here > 0) & (there > 0), (here - there).clamp(-REACH, REACH) + REACH + 1, 0)


def seen_from(histograms: Tensor, place: Tensor) -> Tensor:
    """Histograms (..., S, octave) turned so that the class of `place` (...) comes first, flat: (..., S · octave)."""
    octave = histograms.shape[-1]
    turn = (torch.arange(octave, device=place.device) + (place - 1).clamp(min=0)[..., None]) % octave
    turned = histograms.gather(-1, turn[..., None, :].expand_as(histograms))
    return (turned * (place > 0)[..., None, None]).flatten(-2)


def table(rows: int, dim: int) -> nn.Embedding:
    """A small embedding, whose value 0 is zero: nothing was heard."""
    made = nn.Embedding(rows, dim)
    nn.init.normal_(made.weight, std=0.1)
    nn.init.zeros_(made.weight[0])
    return made


class Intervals(nn.Module):
    """What the embedding adds to a step that is heard: where it lies from the last one, and in what surroundings."""

    def __init__(self, ear: Ear, dim: int) -> None:
        super().__init__()
        self.ear = ear
        voices = len(ear.pitched)
        self.melodic = nn.ModuleList(table(2 * REACH + 2, dim) for _ in range(voices))
        self.ages = nn.ModuleList(table(2 * OLDEST + 1, dim) for _ in range(voices))
        self.harmonic = nn.ModuleDict(
            {f"{low}_{high}": table(2 * REACH + 2, dim) for high in range(voices) for low in range(high)}
        )
        self.surroundings = nn.Linear(voices * ear.histograms, dim, bias=False)

    def forward(self, steps: Tensor, heard: Tensor, before: Tensor) -> Tensor:
        """steps: (B, T, F); heard, before: (B, T, E), after and before each step. Returns (B, T, D)."""
        ear = self.ear
        lasts, ages, histograms = ear.split(heard)
        earlier, _, _ = ear.split(before)
        if ear.lane_field is None:
            here = list(lasts.unbind(-1))
            there = list(earlier.unbind(-1))
        else:
            lane = ear.get_buffer("lanes")[steps[..., ear.lane_field]][..., None]
            here, there = [lasts[..., -1]], [earlier.gather(-1, lane)[..., 0]]
            ages = ages[..., -1:]
        found = self.surroundings(
            torch.cat([seen_from(histograms, place) for place in here], -1).to(self.surroundings.weight.dtype)
        )
        for voice, field in enumerate(ear.pitched):
            sung = ear.place(field, steps[..., field])
            found = found + self.melodic[voice](interval(sung, there[voice])) + self.ages[voice](ages[..., voice])
            for low in range(voice):
                found = found + self.harmonic[f"{low}_{voice}"](interval(here[voice], here[low]))
        return found


class Relative(nn.Module):
    """What the head adds for one field of pitches: its surroundings as seen from its line's last pitch, and scores."""

    def __init__(self, ear: Ear, field: int, dim: int) -> None:
        super().__init__()
        self.ear, self.field, self.voice = ear, field, ear.pitched.index(field)
        self.surroundings = nn.Linear(ear.histograms, dim, bias=False)
        self.ages = nn.ModuleList(table(2 * OLDEST + 1, dim) for _ in ear.pitched)
        others = [table(2 * REACH + 2, dim) for _ in ear.pitched]
        self.others = nn.ModuleDict({str(i): other for i, other in enumerate(others) if i != self.voice})
        self.known = nn.ModuleList(table(2 * REACH + 2, dim) for f in ear.pitched if f < field)
        self.score = nn.Linear(dim, ear.kinds * (2 * REACH + 1))
        pitched = ear.table("place", field) >= 0
        self.register_buffer("values", pitched.nonzero()[:, 0], persistent=False)

    def line(self, lasts: Tensor, known: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The last pitch of the line (...), and the number of that line (...)."""
        ear = self.ear
        if ear.lane_field is None:
            return lasts[..., self.voice], torch.full_like(lasts[..., 0], self.voice)
        if ear.lane_field >= self.field:
            raise ValueError("the line of a pitch is known before the pitch")
        lane = ear.get_buffer("lanes")[known[ear.lane_field]]
        last = lasts.gather(-1, lane[..., None])[..., 0]
        return torch.where(last > 0, last, lasts[..., -1]), lane  # a part's first note is heard from any part's last

    def forward(self, heard: Tensor, known: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """heard: (..., E); known: values (...) of the fields before. Returns (..., D) to add, and the last pitch."""
        ear = self.ear
        lasts, ages, histograms = ear.split(heard)
        last, lane = self.line(lasts, known)
        found = self.surroundings(seen_from(histograms, last).to(self.surroundings.weight.dtype))
        if ear.lane_field is not None:
            return found + self.ages[0](ages.gather(-1, lane[..., None])[..., 0]), last
        for voice in range(len(ear.pitched)):
            found = found + self.ages[voice](ages[..., voice])
            if voice != self.voice:
                found = found + self.others[str(voice)](interval(lasts[..., voice], last))
        for sung, field in zip(self.known, (f for f in ear.pitched if f < self.field), strict=True):
            found = found + sung(interval(ear.place(field, known[field]), last))
        return found, last

    def scores(self, mixed: Tensor, last: Tensor, logits: Tensor) -> Tensor:
        """Logits (..., size) with the score of its interval added to each pitch. mixed: (..., D); last: (...)."""
        ear = self.ear
        values = self.get_buffer("values")
        places, kinds = ear.table("place", self.field)[values], ear.table("kind", self.field)[values]
        away = (places + 1 - last[..., None]).clamp(-REACH, REACH) + REACH  # (..., V)
        scores = self.score(mixed).gather(-1, away + kinds * (2 * REACH + 1))
        return logits.index_add(-1, values, (scores * (last > 0)[..., None]).to(logits.dtype))
