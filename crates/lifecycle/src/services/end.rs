//! Instances are ended; and since when nobody uses them, across the lives of daemons.

use std::time::Duration;

use protocol::JobId;

use super::plan::Plan;
use super::{Instance, Service};
use crate::lifecycle::{Lifecycle, Step};
use crate::phases::Phase;
use crate::{Effect, EndReason, Fact, Run};

impl Lifecycle {
    /// Ends what is not ready in time, what nobody uses for long or while it is in the way, and what is old. Returns
    /// when there is more to end.
    pub(super) fn end_unneeded(
        &mut self,
        service: &mut Service,
        settings: Option<&site::Service>,
        plan: &Plan,
        are_let_go: bool,
        step: &mut Step,
    ) -> Option<Duration> {
        let now = self.now;
        let mut next: Option<Duration> = None;
        let young = |instance: &Instance| settings.is_none_or(|settings| instance.is_young(settings, now));
        let mut spare = service.instances.values().filter(|instance| young(instance)).count();
        spare = spare.saturating_sub(settings.map_or(0, |settings| settings.min as usize));
        for (job_id, instance) in &mut service.instances {
            if instance.ending.is_some() || instance.over {
                continue;
            }
            instance.in_the_way = plan.in_the_way.contains(job_id);
            let is_wanted = settings.is_some() && plan.wanted.contains(job_id);
            let is_old = !young(instance);
            if !instance.users.is_empty() || (is_wanted && !is_old) {
                instance.idle_since = now;
            }
            let idle_at = settings.map_or(now, |settings| instance.idle_since + settings.idle);
            let late_at = instance.ready_by.filter(|_| instance.ready.is_none());
            let old_at = settings.and_then(|settings| instance.old_at(settings));
            let is_unused = instance.users.is_empty();
            let is_idle = idle_at <= now && !is_wanted && spare > 0 && self.services.looked_around;
            let reason = if late_at.is_some_and(|at| at <= now) && settings.is_some() {
                EndReason::ServiceNotReady
            } else if is_unused && is_old {
                EndReason::ServiceOld
            } else if is_unused && (are_let_go || settings.is_none() || instance.in_the_way || is_idle) {
                EndReason::ServiceIdle
            } else {
                let idle_at = Some(idle_at).filter(|_| is_unused && !is_wanted && spare > 0);
                next = next.into_iter().chain(idle_at).chain(late_at).chain(old_at).filter(|at| *at > now).min();
                continue;
            };
            if self.end_instance(job_id, instance, reason, step) && reason == EndReason::ServiceIdle {
                spare = spare.saturating_sub(1);
            }
        }
        next
    }

    /// Ends an instance, if that is possible now.
    fn end_instance(&mut self, job_id: &JobId, instance: &mut Instance, reason: EndReason, step: &mut Step) -> bool {
        self.services.changed = true;
        match self.phase_of(job_id) {
            Some(Phase::Running) => instance.ending = Some((reason, reason.to_string())),
            Some(Phase::Waiting | Phase::Ready) => {
                instance.ending = Some((reason, reason.to_string()));
                self.conclude_cancelled(job_id, step);
            }
            // What is on its way comes back here when it has changed.
            _ => return false,
        }
        true
    }

    /// Has the executor end what is to end, and nobody look at it any more.
    pub(super) fn tell_end(&self, job_id: &JobId, instance: &mut Instance, step: &mut Step) {
        let Some((reason, _)) = instance.ending.as_ref().filter(|_| !instance.told && self.executor.is_known()) else {
            return;
        };
        let Some(run) = self.run_of(job_id).filter(|run| self.jobs.is(run, Phase::Running)) else { return };
        step.effects.push(Effect::End(run.clone(), *reason));
        if std::mem::take(&mut instance.served) {
            step.effects.push(Effect::Withdraw(run));
        }
        instance.told = true;
    }

    /// Why an instance was told to end, if it was.
    pub(crate) fn ending_of_instance(&self, job_id: &JobId) -> Option<EndReason> {
        let instance = self.services.all.get(self.service_of(job_id)?)?.instances.get(job_id)?;
        instance.ending.as_ref().map(|(reason, _)| *reason)
    }

    /// The run of an instance is over, and was ended for this. It may have been an earlier daemon that has told it to.
    pub(crate) fn instance_was_ended(&mut self, run: &Run, reason: EndReason) {
        let Some(name) = self.service_of(&run.job_id).cloned() else { return };
        if let Some(instance) = self.services.instance_mut(&name, &run.job_id) {
            instance.ending.get_or_insert_with(|| (reason, reason.to_string()));
        }
    }

    /// What the next daemon is to know of instances that nobody uses, or each of these would begin to be idle anew
    /// where no daemon stays.
    pub(crate) fn idle_instances(&self) -> impl Iterator<Item = Fact> {
        let all = self.services.all.values().flat_map(|service| &service.instances);
        let is_idle = |instance: &Instance| instance.users.is_empty() && instance.ending.is_none() && !instance.over;
        all.filter(move |(_, instance)| is_idle(instance))
            .map(|(job_id, instance)| Fact::Idle(job_id.clone(), instance.idle_since))
    }

    /// The executor has told what goes on: what still does may not have heard that it is to end.
    pub(crate) fn tell_again_which_instances_end(&mut self) {
        for service in self.services.all.values_mut() {
            service.instances.values_mut().for_each(|instance| instance.told = false);
        }
    }
}
