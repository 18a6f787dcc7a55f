//! What waits for what, and how long the longest way is.

use crate::TaskNo;

/// The edges of a workflow, in both directions, and what follows from them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    parents: Lists,
    children: Lists,
    /// All tasks, each after all that it waits for.
    pub(crate) order: Vec<TaskNo>,
    /// How many tasks wait for each other on the longest way from a beginning to this task, itself not counted.
    pub(crate) depth: Vec<u32>,
    /// The same from this task to an end.
    pub(crate) height: Vec<u32>,
}

impl Graph {
    /// The graph of these edges: the parents of each task. An error holds circles, one after the other, of which each
    /// is a list of tasks where each waits for the next, and the last for the first.
    pub(crate) fn new(parents: &[Vec<TaskNo>]) -> Result<Self, Vec<Vec<TaskNo>>> {
        let (parents, children) = (Lists::new(parents), Lists::turned(parents));
        let order = Sorting::new(&parents, &children).order()?;
        let longest = |tasks: &mut dyn Iterator<Item = TaskNo>, next: &Lists| {
            let mut longest = vec![0_u32; parents.len()];
            for task in tasks {
                longest[task.index()] = next.of(task).iter().map(|task| longest[task.index()] + 1).max().unwrap_or(0);
            }
            longest
        };
        let depth = longest(&mut order.iter().copied(), &parents);
        let height = longest(&mut order.iter().rev().copied(), &children);
        Ok(Self { parents, children, order, depth, height })
    }

    pub(crate) fn len(&self) -> usize {
        self.parents.len()
    }

    pub(crate) fn parents(&self, task: TaskNo) -> &[TaskNo] {
        self.parents.of(task)
    }

    pub(crate) fn children(&self, task: TaskNo) -> &[TaskNo] {
        self.children.of(task)
    }
}

/// A list of tasks for each task, all in one piece.
#[derive(Debug, PartialEq, Eq)]
struct Lists {
    /// Where each list begins, and where the last one ends.
    starts: Vec<usize>,
    tasks: Vec<TaskNo>,
}

impl Lists {
    fn new(lists: &[Vec<TaskNo>]) -> Self {
        let mut starts = Vec::with_capacity(lists.len() + 1);
        starts.push(0);
        starts.extend(lists.iter().scan(0, |end, list| {
            *end += list.len();
            Some(*end)
        }));
        Self { starts, tasks: lists.concat() }
    }

    /// Who has a task in its list, for each task, in the order of the tasks.
    fn turned(lists: &[Vec<TaskNo>]) -> Self {
        let mut starts = vec![0; lists.len() + 1];
        lists.iter().flatten().for_each(|task| starts[task.index() + 1] += 1);
        (0..lists.len()).for_each(|at| starts[at + 1] += starts[at]);
        let mut tasks = vec![TaskNo::new(0); starts[lists.len()]];
        let mut free = starts.clone();
        for (at, list) in lists.iter().enumerate() {
            for task in list {
                tasks[free[task.index()]] = TaskNo::at(at);
                free[task.index()] += 1;
            }
        }
        Self { starts, tasks }
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn of(&self, task: TaskNo) -> &[TaskNo] {
        &self.tasks[self.starts[task.index()]..self.starts[task.index() + 1]]
    }
}

/// How many circles are told. Each is looked for among all edges that are left.
const CIRCLES_MAX: usize = 10;

/// Putting tasks in order, and finding circles where there is no order.
struct Sorting<'a> {
    parents: &'a Lists,
    children: &'a Lists,
    /// For how many tasks each one has to wait yet.
    waits: Vec<usize>,
    is_out: Vec<bool>,
    order: Vec<TaskNo>,
}

impl<'a> Sorting<'a> {
    fn new(parents: &'a Lists, children: &'a Lists) -> Self {
        let tasks = (0..parents.len()).map(TaskNo::at);
        let waits: Vec<usize> = tasks.map(|task| parents.of(task).len()).collect();
        Self { parents, children, is_out: vec![false; waits.len()], order: Vec::with_capacity(waits.len()), waits }
    }

    fn order(mut self) -> Result<Vec<TaskNo>, Vec<Vec<TaskNo>>> {
        let tasks = (0..self.waits.len()).map(TaskNo::at);
        let mut next: Vec<TaskNo> = tasks.filter(|task| self.waits[task.index()] == 0).collect();
        let mut circles = Vec::new();
        loop {
            let mut at = 0;
            while let Some(task) = next.get(at).copied() {
                at += 1;
                self.take_out(task, &mut next);
            }
            if self.order.len() == self.waits.len() || circles.len() == CIRCLES_MAX {
                break;
            }
            let circle = self.circle();
            // The circle is told; another one is found without it.
            next = vec![circle[0]];
            circles.push(circle);
        }
        if circles.is_empty() { Ok(self.order) } else { Err(circles) }
    }

    fn take_out(&mut self, task: TaskNo, next: &mut Vec<TaskNo>) {
        self.is_out[task.index()] = true;
        self.order.push(task);
        for child in self.children.of(task) {
            let waits = &mut self.waits[child.index()];
            *waits -= 1;
            if *waits == 0 && !self.is_out[child.index()] {
                next.push(*child);
            }
        }
    }

    /// A circle among the tasks that are left. Each of them waits for one that is left, so that a walk from one to the
    /// next comes back to where it was.
    fn circle(&self) -> Vec<TaskNo> {
        let first = self.is_out.iter().position(|is_out| !is_out).expect("a task is left");
        let mut place = vec![None; self.is_out.len()];
        let mut walk: Vec<TaskNo> = Vec::new();
        let mut task = TaskNo::at(first);
        loop {
            if let Some(begin) = place[task.index()] {
                return walk.split_off(begin);
            }
            place[task.index()] = Some(walk.len());
            walk.push(task);
            let left = |parent: &&TaskNo| !self.is_out[parent.index()];
            task = *self.parents.of(task).iter().find(left).expect("a task that is left waits for one that is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(parents: &[&[u32]]) -> Result<Graph, Vec<Vec<u32>>> {
        let parents: Vec<Vec<TaskNo>> =
            parents.iter().map(|list| list.iter().copied().map(TaskNo::new).collect()).collect();
        let numbers = |circle: &Vec<TaskNo>| circle.iter().map(|task| task.index() as u32).collect();
        Graph::new(&parents).map_err(|circles| circles.iter().map(numbers).collect())
    }

    #[test]
    fn the_longest_way_is_counted_from_both_ends() {
        // 0 → 1 → 3, 0 → 3, 2 alone.
        let graph = graph(&[&[], &[0], &[], &[1, 0]]).unwrap();
        assert_eq!(graph.order, [0, 2, 1, 3].map(TaskNo::new));
        assert_eq!(
            (graph.depth.as_slice(), graph.height.as_slice()),
            ([0, 1, 0, 2].as_slice(), [2, 1, 0, 0].as_slice())
        );
        assert_eq!(graph.children(TaskNo::new(0)), [1, 3].map(TaskNo::new));
        assert_eq!(graph.parents(TaskNo::new(3)), [1, 0].map(TaskNo::new));
    }

    #[test]
    fn circles_are_told_one_by_one() {
        assert_eq!(graph(&[&[0]]).unwrap_err(), [vec![0]]);
        // 4 only waits for a circle.
        assert_eq!(graph(&[&[1], &[2], &[0], &[3], &[0]]).unwrap_err(), [vec![0, 1, 2], vec![3]]);
        let many: Vec<[u32; 1]> = (0..50).map(|task| [task]).collect();
        let many: Vec<&[u32]> = many.iter().map(<[u32; 1]>::as_slice).collect();
        assert_eq!(graph(&many).unwrap_err().len(), CIRCLES_MAX);
    }
}
