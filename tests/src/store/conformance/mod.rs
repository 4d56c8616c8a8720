//! What every store must do: `docs/job-states.md`, row by row, and the promises around it.
//!
//! Each test takes a fixture and runs on every kind of database. A test that is missing from the list below is dead
//! code, which the compiler tells.

mod amending;
mod bulk;
mod capped;
mod claiming;
mod content;
mod dead;
mod enqueueing;
mod keys;
mod kin;
mod leases;
mod limits;
mod lists;
mod locks;
mod logs;
mod masks;
mod narrowed;
mod operations;
mod outcomes;
mod parents;
mod pressure;
mod pulling;
mod queues;
mod retries;
mod schedules;
mod schema;
mod upkeep;
mod workers;
mod workflows;

macro_rules! tests {
    ($place:ident $($module:ident { $($name:ident)* })*) => {
        mod $place {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let fixture = crate::store::fixture::Fixture::$place().await;
                    crate::store::conformance::$module::$name(&fixture).await;
                })*
            })*
        }
    };
}

macro_rules! conformance {
    ($place:ident) => {
        tests! { $place
            enqueueing {
                an_enqueued_job_has_all_that_it_was_given
                a_job_without_options_has_the_defaults
                the_snapshot_has_the_members_of_the_protocol_in_its_order
                times_are_utc_with_microseconds
                many_are_enqueued_in_order
                all_or_none_are_enqueued
                an_empty_call_enqueues_nothing
                a_delayed_job_waits_for_its_time
                what_breaks_a_rule_is_refused
                the_trace_context_goes_along
                thousands_are_enqueued_at_once
                everyone_enqueues_at_once
            }
            content {
                unicode_survives
                numbers_of_any_size_are_kept_as_they_came
                deep_json_is_kept
                arguments_that_a_reader_would_choke_on_are_refused
                a_result_that_a_reader_would_choke_on_is_kept_as_text
                a_megabyte_is_kept
                escaped_nul_in_arguments_is_kept
                line_breaks_between_tokens_become_blanks
                a_nul_in_an_error_is_replaced
                a_nul_in_a_note_is_replaced
                a_nul_in_a_question_finds_nothing
                results_and_errors_of_any_kind_are_kept
                quotes_and_control_characters_are_escaped
            }
            keys {
                a_living_key_answers_with_its_job
                twice_in_one_call_is_one_job
                a_key_belongs_to_its_task
                a_key_is_held_while_the_job_lives
                a_key_is_let_go_at_the_end
                a_retry_takes_the_key_again
                a_retry_takes_a_key_whose_time_is_over
                a_retry_conflicts_when_the_key_is_taken
                one_key_is_one_job_however_many_enqueue
                a_key_may_be_unique_while_its_job_waits_only
                a_pulled_job_lets_go_of_a_key_that_is_held_while_waiting
                a_key_may_be_unique_for_a_time_whatever_becomes_of_its_job
                a_key_for_a_time_outlives_its_job_and_goes_in_the_end
                a_retry_keeps_a_key_that_is_held_for_a_time
            }
            retries {
                a_retry_may_change_for_whom_a_job_waits
                a_retry_may_let_a_job_wait_for_nobody
                a_retry_may_make_a_job_lax_or_strict
                a_new_parent_that_ends_meanwhile_lets_its_child_run
                a_retry_may_say_until_when_a_job_is_started
                what_a_retry_cannot_change_is_refused
            }
            bulk {
                all_that_a_filter_finds_are_acted_on
                whom_the_options_do_not_fit_is_passed_over
                what_its_state_forbids_is_passed_over
            }
            kin {
                every_claim_tells_notes_parents_and_priority
                a_claim_of_a_job_without_them_tells_none
                what_jobs_brought_is_told_in_the_order_asked
                what_jobs_brought_comes_in_pieces
            }
            workflows {
                a_chain_runs_one_after_the_other
                the_order_in_the_call_does_not_matter
                a_circle_is_refused
                a_group_is_gathered_with_its_results
                a_workflow_may_hang_on_jobs_with_keys
                thousands_wait_for_each_other
                a_handler_runs_once_a_parent_has_failed
                a_handler_waits_while_a_parent_is_retried
                a_handler_is_called_off_when_nothing_failed
                a_handler_of_what_has_ended_is_judged_at_once
                a_handler_that_is_called_off_calls_off_its_own
                a_handler_in_one_call_with_its_parents
                a_cascade_is_called_off
                children_of_what_a_cascade_calls_off_are_judged
                a_handler_hears_of_parents_that_go
                a_handler_that_may_run_stays_so_when_its_parent_is_removed
                a_handler_that_may_run_stays_so_while_its_other_parents_go_on
                a_handler_waits_again_when_its_parent_is_retried
                a_handler_of_one_that_was_there_is_judged_at_once
                parents_stand_as_they_were_given_whichever_were_there
            }
            limits {
                no_more_run_than_the_limit_lets
                each_event_is_written_for_jobs_under_limits
                a_lost_and_a_released_job_give_their_places_back
                an_automatic_retry_gives_its_place_back
                parts_are_counted_apart_and_served_by_turns
                a_part_with_a_long_backlog_does_not_keep_others_waiting
                so_many_are_started_in_a_time
                the_nearest_limit_counts
                jobs_without_limits_are_not_kept_waiting
                a_more_urgent_job_without_a_limit_goes_first
                a_claim_of_other_tasks_or_queues_takes_none
                pullers_are_limited_too
                a_limit_that_is_gone_holds_nothing_back
                a_limit_of_none_lets_none_run
                two_processes_share_a_limit
                a_bad_limit_changes_nothing
                the_more_urgent_goes_first_over_all_limits
                a_claim_with_bounds_for_tasks_is_limited_too
                a_part_with_room_is_found_among_many_that_are_full
                a_claim_with_bounds_takes_the_more_urgent_first_under_limits_or_not
            }
            queues {
                nothing_is_claimed_from_a_paused_queue
                jobs_under_limits_wait_in_a_paused_queue_too
                queues_are_listed
                what_has_waited_long_goes_first_when_asked
                urgent_work_goes_first_unless_asked
            }
            dead {
                why_each_run_failed_is_kept
                the_pause_is_the_run_s_the_job_s_the_task_s
                the_dead_are_listed_by_themselves
                hours_tell_what_the_last_day_brought
                each_state_and_queue_is_kept_as_long_as_is_said
                figures_tell_how_many_were_enqueued
            }
            claiming {
                a_claim_starts_the_job
                the_order_is_priority_then_who_became_ready_first
                tasks_are_found_far_behind_those_of_others
                a_retried_job_queues_up_anew
                a_claim_takes_no_more_than_asked
                a_claim_of_nothing_takes_nothing
                several_queues_are_one_pool
                only_the_tasks_asked_for_are_claimed
                only_the_priorities_asked_for_are_claimed
                a_delayed_job_is_claimed_after_it_was_staged
                staged_jobs_queue_up_by_their_time
                an_expired_job_is_not_claimed
                a_job_that_was_started_does_not_expire
                two_claimers_never_share_a_job
                what_an_outcome_made_ready_is_claimed_then_or_next
                thousands_are_claimed_and_finished_at_once
                whatever_makes_jobs_ready_wakes_workers
            }
            masks {
                nobody_but_the_worker_sees_what_is_hidden
                a_puller_gets_all_of_it
                the_nearest_mask_counts
                a_mask_counts_from_then_on_until_another_says_otherwise
                arguments_without_anything_to_hide_stay_to_the_byte
                what_a_schedule_enqueues_is_hidden_as_well
                masks_may_be_put_by_several_at_once
            }
            pulling {
                a_pulled_job_runs_for_its_puller
                each_pull_gets_jobs_of_its_tasks_only
                a_pull_takes_no_more_than_it_has_workers
                a_higher_priority_is_pulled_first
                pulls_that_share_a_task_never_share_a_job
                two_processes_that_pull_never_share_a_job
                what_is_not_ready_is_not_pulled
                a_thousand_pulls_are_served_at_once
                a_released_job_waits_again_with_its_attempt
                a_released_job_that_never_ran_may_still_expire
                only_who_holds_the_lease_can_release
            }
            outcomes {
                a_finished_job_has_its_result
                a_failure_without_attempts_left_is_the_end
                a_failure_with_attempts_left_is_retried
                a_failure_that_must_not_be_retried_is_the_end
                a_run_that_is_put_off_uses_no_attempt_up
                the_default_backoff_is_within_its_range
                a_success_clears_the_error_of_the_failure_before
                the_same_word_again_is_repeated
                another_word_under_the_same_lease_is_late
                a_word_under_a_lost_lease_is_late
                a_word_on_a_job_that_is_gone_is_lost
                a_word_after_cancelling_is_late
                a_word_after_a_retry_by_hand_is_late
                two_words_in_one_call_are_judged_in_order
                a_batch_is_judged_one_by_one
                an_outcome_under_a_lease_that_ran_out_counts
            }
            leases {
                an_extended_lease_holds_longer
                a_cancelled_job_s_lease_says_so
                a_lost_lease_says_so
                extending_writes_no_event
                a_lost_job_with_attempts_left_waits_again
                a_lost_job_without_attempts_left_has_failed
                a_lease_that_holds_is_left_alone
                a_lost_job_is_found_behind_many_that_run_on_under_extended_leases
                nothing_is_rescued_within_the_grace
                leases_have_their_grace_anew_when_nobody_has_looked_after_the_queue
                a_rescued_job_runs_once_again
                a_lease_of_no_length_has_ended_when_somebody_looks
                leases_end_by_the_database_s_clock_wherever_that_is_put
            }
            amending {
                an_amendment_changes_when_how_urgently_and_where_a_job_runs
                an_amended_job_queues_up_anew
                an_amended_delay_may_end_a_wait
                an_amendment_leaves_parents_to_be_waited_for
                a_job_that_does_not_wait_cannot_be_amended
                an_amendment_that_breaks_a_rule_changes_nothing
            }
            operations {
                cancelling_ends_a_waiting_job
                cancelling_ends_a_running_job
                an_ended_job_cannot_be_cancelled
                a_retry_makes_every_ended_job_wait_again
                a_retry_makes_a_delayed_job_ready
                a_retry_may_change_options
                a_running_job_cannot_be_retried
                a_retry_must_grant_an_attempt
                a_retry_forgets_when_the_job_was_to_expire
                every_job_that_does_not_run_can_be_removed
                a_running_job_cannot_be_removed
                what_is_not_there_is_not_found
                notes_are_merged_member_by_member
                notes_have_a_bound_together
                progress_is_replaced_and_emptied_by_the_next_claim
                a_progress_is_0_to_100_and_short
                a_worker_annotates_under_its_lease_only
                an_annotation_of_nothing_writes_nothing
                an_ended_job_can_be_annotated
            }
            parents {
                a_child_waits_for_all_of_its_parents
                a_missing_parent_counts_as_finished
                an_ended_parent_is_judged_at_once
                a_failed_parent_blocks_until_it_is_retried
                a_cancelled_parent_lets_a_lax_child_run
                a_failed_parent_lets_a_lax_child_run
                a_parent_that_is_retried_by_itself_still_blocks
                a_retried_parent_blocks_children_that_wait
                a_retried_parent_blocks_a_child_that_comes_back
                a_removed_parent_counts_as_finished
                an_expired_parent_counts_as_finished
                a_lost_parent_without_attempts_lets_a_lax_child_run
                a_parent_named_twice_counts_once
                a_job_never_waits_for_one_of_its_own_call
                a_child_waits_for_its_time_too
                children_are_listed
                thousands_of_children_become_ready
                a_parent_with_many_siblings_opens_the_last_edge
                a_child_enqueued_while_its_parent_finishes_becomes_ready
                a_child_enqueued_while_its_parent_is_retried_counts_right
            }
            lists {
                a_list_is_newest_first_and_goes_on_by_cursor
                filters_narrow_a_list
                what_a_job_has_enqueued_is_a_list
                a_list_is_narrowed_by_so_many_names
                a_page_has_a_bound
                a_page_ends_with_the_job_that_fills_its_bytes
                a_list_holds_snapshots
                figures_count_every_state
                figures_stay_right_over_a_whole_life
                figures_count_locks_and_schedules
                jobs_are_listed_by_their_ids
                workers_count_while_their_heartbeat_is_fresh
                the_store_answers
            }
            narrowed {
                phases_narrow_a_list
                values_of_notes_narrow_a_list
                values_of_arguments_narrow_a_list
                what_is_hidden_is_found_by_nobody
                texts_narrow_a_list
                times_narrow_a_list
                a_walk_that_finds_little_ends_and_goes_on
            }
            locks {
                a_lock_is_held_by_one
                a_shared_lock_is_held_by_as_many_as_its_limit
                a_lock_ends_by_itself
                extending_moves_the_end_and_only_ones_own
                unlocking_ends_ones_own_hold_alone
                an_operator_ends_all_holds_of_a_name
                asking_takes_nothing
                what_is_held_is_listed_by_the_page
                what_breaks_a_rule_is_refused
                upkeep_removes_what_has_ended
                never_more_than_the_limit_hold_it_at_once
                a_guard_keeps_its_lock_and_lets_it_go
                a_guard_that_is_dropped_lets_its_lock_go
                a_guard_tells_when_its_lock_is_lost
            }
            schedules {
                a_new_interval_fires_at_once
                a_new_expression_waits_for_its_time
                a_schedule_fires_once_from_three_stores
                missed_firings_are_made_up_by_one
                missed_firings_are_made_up_one_by_one_where_that_is_wanted
                a_round_has_a_bound_and_the_next_goes_on
                a_shorter_interval_brings_the_next_firing_nearer
                a_key_keeps_firings_from_piling_up
                options_and_arguments_are_kept_as_they_were_put
                what_breaks_a_rule_is_refused
                no_schedules_are_never_due
                schedules_are_put_listed_and_removed
                what_a_pause_keeps_from_firing_is_not_made_up
                running_by_hand_moves_nothing
                the_configuration_has_its_own_and_leaves_others_alone
                a_time_of_before_is_kept_by_what_defines_it_now
                changes_are_told_to_this_process
                what_cannot_be_read_here_holds_up_nothing_else
            }
            upkeep {
                due_jobs_are_staged
                upkeep_says_when_the_next_is_due
                jobs_that_were_never_started_expire
                old_finished_jobs_are_removed
                a_finished_parent_of_a_living_job_is_kept
                failed_and_cancelled_jobs_are_kept
                a_round_has_a_bound
                workers_without_heartbeat_are_forgotten
                two_rounds_at_once_do_each_thing_once
            }
            workers {
                a_worker_is_shown_as_it_said
                a_worker_that_is_not_heard_of_is_stale_until_it_is_forgotten
                workers_for_a_nodes_own_tasks_are_counted_apart
                workers_are_listed_by_page_id_and_state
                commands_are_taken_once_and_in_order
                two_who_take_at_once_get_each_command_once
                an_inbox_has_a_bound
                what_nobody_takes_goes_with_its_worker_or_with_time
            }
            capped {
                no_more_of_a_task_is_claimed_than_asked
                a_bound_holds_over_all_queues_and_priorities
                a_claim_with_bounds_keeps_the_order_of_priorities
                a_claim_with_bounds_hands_outcomes_in_too
                a_claim_with_bounds_must_name_its_tasks
                two_who_claim_with_bounds_never_share_a_job
            }
            logs {
                lines_stand_in_their_order_with_their_run
                all_that_is_told_at_once_is_one_event
                only_the_event_that_brings_lines_has_them
                the_newest_lines_are_kept
                the_newest_bytes_are_kept
                a_line_is_cut_and_without_nul
                too_much_at_once_changes_nothing
                who_has_lost_the_job_adds_nothing
                a_log_goes_with_its_job
                a_line_that_is_said_again_is_kept_once
                a_log_is_read_by_the_page
            }
            pressure {
                the_worst_that_nodes_say_counts_until_it_is_old
                claims_are_few_while_a_node_cannot_follow
            }
            schema {
                migrating_again_does_nothing
                migrating_from_two_processes_applies_each_once
                a_newer_schema_is_refused
            }
        }
    };
}

/// What one store hears of another: not through a pooler, where nobody can listen.
mod told {
    macro_rules! told {
        ($place:ident) => {
            tests! { $place
                queues {
                    a_resumed_queue_wakes_workers
                }
                workers {
                    commands_and_cancelled_runs_wake_workers
                }
            }
        };
    }

    told!(postgres);
    told!(sqlite_memory);
    told!(sqlite_file);
}

conformance!(postgres);
conformance!(pgbouncer);
conformance!(sqlite_memory);
conformance!(sqlite_file);
